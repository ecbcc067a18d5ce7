import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedKeyId, UserId } from "../../ids.ts";
import {
  type Certificate,
  certificateSignatureHolds,
  type SignedCertificate,
} from "../../protocol/federation/certificate.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import { registryScope } from "../../protocol/federation/request.ts";
import type { Tx } from "../../storage/store.ts";
import type { KeyView } from "../../wire/federation/operations.ts";
import type { FederatedCaller } from "../context.ts";
import { demandAccepted, demandFirst, demandSameKey } from "./acceptance.ts";
import { actsFor, type Holder } from "./connectors.ts";
import { decide } from "./decisions.ts";
import { KEY, type KeyBody, listStored, MEMBER, memberId, POLICY, readStored, type Stored } from "./documents.ts";
import { addErasures, keepCertificate, stateErasure } from "./keeping.ts";
import { dropPending, noSuchKey, readRequest } from "./life.ts";
import type { Desk } from "./ruling.ts";
import { epochsOf, type FederationService, manifestAt, memberOfAccount } from "./service.ts";
import { keyViewOf } from "./views.ts";

type Work = Pick<FederationService, "federation.keys" | "federation.key" | "federation.inform">;

const PAGE = 16;

/** The caller's own key, or one of a registry whose connector it is; another's is like none (P8). @throws Fault not_found */
async function ownKey(tx: Tx, id: FederatedKeyId, userId: UserId): Promise<Stored<KeyBody>> {
  const found = await readStored(tx, KEY, id);
  if (!found || !(await actsFor(tx, userId, found.owner as Holder))) throw noSuchKey();
  return found;
}

/**
 * To whom a key belongs of which an account informs: a workspace's policy tells a registry's key from an account's.
 *
 * @throws Fault denied, not_found
 */
async function holderOf(tx: Tx, c: Certificate, userId: UserId): Promise<Holder> {
  const scope = registryScope(c.owner);
  const policy = c.policy === null ? undefined : await readStored(tx, POLICY, c.policy);
  if (await actsFor(tx, userId, scope)) {
    if (policy?.owner === scope) return scope;
    if (!(await readStored(tx, MEMBER, memberId(c.federationId, userId)))) throw noSuchKey();
  }
  const member = await memberOfAccount(tx, c.federationId, userId);
  if (!equalBytes(member.requestKey, c.owner) || policy?.owner === scope) throw noSuchKey();
  return userId;
}

/**
 * Of a key that this server knows nothing of, neither its request, the owner is what its signers say: so many that one
 * of them is honest, or liars could take another's key id here.
 *
 * @throws Fault integrity
 */
function demandWitnesses({ certificate: c, signatures }: SignedCertificate, manifest: Manifest): void {
  const sound = signatures.filter((s) => c.holders.includes(s.index) && certificateSignatureHolds(manifest, c, s));
  if (new Set(sound.map(({ index }) => index)).size < manifest.threshold)
    throw new Fault("integrity", "too few servers have signed this certificate for one that knows nothing of the key");
}

/** Keys as their owner sees them, and what an absent server learns of them (docs/protocol.md §8.4). */
export function createKeys(desk: Desk): Work {
  const { site, turns } = desk;
  const { ctx } = site;

  async function inform(caller: FederatedCaller, input: Parameters<Work["federation.inform"]>[1]): Promise<KeyView> {
    const { userId } = caller.account;
    const signed = input.certificate;
    const { certificate: c, acceptance } = signed;
    const { manifest, row, held, holder, epochs } = await ctx.store.transaction(async (tx) => ({
      holder: await holderOf(tx, c, userId),
      manifest: (await manifestAt(tx, c.federationId, c.epoch)).manifest,
      epochs: await epochsOf(tx, c.federationId),
      row: await readRequest(tx, c.requestId),
      held: await readStored(tx, KEY, c.keyId),
    }));
    // another's request makes no key of this account: nothing of it is touched
    if ((held && held.owner !== holder) || (row && row.owner !== holder)) throw noSuchKey();
    demandAccepted(c.requestId, acceptance, signed, manifest);
    if (!held && !row) demandWitnesses(signed, manifest);
    if (held) demandSameKey(held.value.certificate.certificate, c);
    else if (c.generation === 0) demandFirst(c);
    // the acceptance inside it is the decision that this server has missed
    if (row) await decide(desk, row, acceptance, signed);
    else
      await keepCertificate(desk, {
        owner: holder,
        signed,
        label: null,
        frozen: false,
        also: (tx) => dropPending(tx, c.requestId),
      });
    await stateErasure(desk, holder, c.keyId);
    return ctx.store.transaction(async (tx) => {
      await addErasures(tx, c.keyId, input.erasures, epochs);
      return keyViewOf(tx, await ownKey(tx, c.keyId, userId));
    });
  }

  return {
    "federation.key": (caller, { keyId }) =>
      ctx.store.transaction(async (tx) => keyViewOf(tx, await ownKey(tx, keyId, caller.account.userId))),
    "federation.keys": (caller, { federationId, after }) => {
      const { userId } = caller.account;
      return ctx.store.transaction(async (tx) => {
        await memberOfAccount(tx, federationId, userId);
        let last: Pick<Stored<KeyBody>, "id" | "place"> | null =
          after === null ? null : await ownKey(tx, after, userId);
        const items: KeyView[] = [];
        for (;;) {
          const page = await listStored(tx, KEY, userId, last, PAGE + 1);
          for (const key of page) {
            last = key;
            if (key.value.certificate.certificate.federationId !== federationId) continue;
            if (items.length >= PAGE) return { items, more: true };
            items.push(await keyViewOf(tx, key));
          }
          if (page.length <= PAGE) return { items, more: false };
        }
      });
    },
    "federation.inform": (caller, input) => {
      const { keyId, requestId, generation } = input.certificate.certificate;
      caller.concerns(keyId);
      // the turn in which the request that made it would be decided
      return turns.take(generation === 0 ? requestId : keyId, () => inform(caller, input));
    },
  };
}
