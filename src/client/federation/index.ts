import { wipe } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { PolicyId } from "../../ids.ts";
import { asHashId, type FederatedRequestId, type FederationId, isHashId } from "../../ids.ts";
import { shownControl, shownCustody } from "../../protocol/federation/custody.ts";
import type { FederatedKeyInfo, FederationClient, GenerateFederated } from "../federationapi.ts";
import { hedgeOf } from "../hedge.ts";
import type { Open } from "../opened.ts";
import { refresh } from "../vaultbox.ts";
import { approvalsOf, castVote, namedInfo } from "./approvals.ts";
import { auditFederation } from "./auditing.ts";
import { loadPolicy } from "./chains.ts";
import { checkFederation } from "./checking.ts";
import { createFederation } from "./creating.ts";
import { generateKey, goOnMaking, importKey } from "./generate.ts";
import type { Ground } from "./ground.ts";
import { groundOf } from "./grounds.ts";
import type { HeldFederation, HeldKey } from "./held.ts";
import { fetchPinned, infoOf, joinFederation } from "./joining.ts";
import { heldIn, joinedFederation, newestOf } from "./keeping.ts";
import { shownPublicKey } from "./making.ts";
import { type Members, openMembers, type Reaching } from "./members.ts";
import { deliverOwed } from "./pending.ts";
import { listPolicies, putPolicy } from "./policies.ts";
import { cancelRequest, heldRequest, listRequests, look } from "./requests.ts";
import { goOnResharing, reshareKey } from "./reshare.ts";
import { goOnUsing, releaseKey, signWithKey } from "./use.ts";
import { adoptKeys, keyViews, standings } from "./views.ts";

/** The federations' part of the client, and what ends its sessions. */
export interface FederationPart {
  readonly calls: FederationClient;
  end(): Promise<void>;
}

/**
 * The federations' part of the client API over an open vault (docs/client.md). Sessions with servers are opened when
 * they are needed, and kept until the end.
 */
export function createFederationClient(open: Open, reaching: Reaching = {}): FederationPart {
  const opened = new Map<FederationId, { readonly epoch: number; readonly members: Members }>();
  const retired: Members[] = [];

  function membersOf(federation: HeldFederation): Members {
    const { epoch } = newestOf(federation);
    const known = opened.get(federation.federationId);
    if (known?.epoch === epoch) return known.members;
    if (known) retired.push(known.members);
    const members = openMembers(open, federation, reaching);
    opened.set(federation.federationId, { epoch, members });
    return members;
  }

  async function joined(name: string): Promise<HeldFederation> {
    refresh(open.box);
    if (heldIn(open).federationPins.length > 0) await fetchPinned(open, reaching);
    return joinedFederation(open, name);
  }

  async function all(): Promise<readonly HeldFederation[]> {
    refresh(open.box);
    if (heldIn(open).federationPins.length > 0) await fetchPinned(open, reaching);
    return heldIn(open).federations;
  }

  /** What a decision is still owed to is told first. */
  async function ground(federation: HeldFederation): Promise<Ground> {
    const made = groundOf(open, federation, membersOf(federation));
    await deliverOwed(made);
    return made;
  }

  const byId = (federationId: FederationId): HeldFederation => joinedFederation(open, federationId);

  /** A key by its name, its id or the beginning of it. */
  async function keyOf(nameOrId: string): Promise<HeldKey> {
    const federations = await all();
    const find = (): HeldKey | undefined => {
      const { federatedKeys } = heldIn(open);
      const named = federatedKeys.filter(({ name }) => name === nameOrId);
      const found =
        named.length > 0 || !/^[0-9a-f]{4,64}$/.test(nameOrId)
          ? named
          : federatedKeys.filter(({ keyId }) => keyId.startsWith(nameOrId));
      if (found.length > 1) throw new Fault("ambiguous", `more than one federated key is called "${nameOrId}"`);
      return found[0];
    };
    const known = find();
    if (known) return known;
    // another device may have made it
    for (const federation of federations) await learnKeys(federation);
    const learned = find();
    if (learned) return learned;
    throw new Fault("not_found", `there is no federated key "${nameOrId}"`, { hint: "keyhold key list" });
  }

  async function learnKeys(federation: HeldFederation): Promise<ReadonlySet<string>> {
    const found = standings(await keyViews(open, membersOf(federation), federation));
    await adoptKeys(open, federation, found);
    return new Set(
      found.filter(({ newest }) => newest.frozen).map(({ newest }) => newest.certificate.certificate.keyId),
    );
  }

  function keyInfo(key: HeldKey, frozen: boolean): FederatedKeyInfo {
    const { certificate: c } = key.certificate;
    return {
      name: key.name,
      federation: byId(key.federationId).name,
      keyId: key.keyId,
      type: c.type,
      custody: c.custody,
      control: shownControl(c, key.released),
      shown: shownCustody(c, key.released),
      origin: c.origin,
      released: key.released,
      publicKeyHex: shownPublicKey(c),
      threshold: c.threshold,
      holders: c.holders,
      generation: c.generation,
      frozen,
    };
  }

  async function newKey(input: GenerateFederated) {
    const federation = await joined(input.federation);
    const at = await ground(federation);
    const { name, type, bytes, custody, control } = input;
    return { at, key: { name, type, bytes, custody, control, policy: await policyOf(at, input.policy) } };
  }

  async function policyOf(at: Ground, name: string | null): Promise<PolicyId | null> {
    if (name === null) return null;
    // somebody else's policy has no name here yet
    if (isHashId(name)) return (await loadPolicy(at, asHashId(name))).policyId;
    const found = (await listPolicies(at)).filter((one) => one.name === name || one.policyId === name);
    const [one, another] = found;
    if (another) throw new Fault("ambiguous", `more than one policy is called "${name}"`);
    if (!one)
      throw new Fault("not_found", `this account knows no policy "${name}" there`, {
        hint: "keyhold policy set FILE; somebody else's policy is named by its id, which they see by keyhold policy show",
      });
    return asHashId(one.policyId);
  }

  function requestIdOf(text: string): FederatedRequestId {
    const { federatedRequests } = heldIn(open);
    const known = federatedRequests.filter(({ requestId }) => requestId.startsWith(text));
    const [one, another] = known;
    if (one && !another && text.length >= 4) return one.requestId;
    if (isHashId(text)) return asHashId(text);
    throw new Fault("bad_input", "the id of a request has 64 hexadecimal digits");
  }

  /** The federation of a request: where this vault made it, or whose servers know it. */
  async function groundOfRequest(requestId: FederatedRequestId): Promise<Ground> {
    const held = heldIn(open).federatedRequests.find((one) => one.requestId === requestId);
    const federations = await all();
    if (held) return ground(byId(held.federationId));
    let failure: unknown = new Fault("not_found", "this vault knows no such request, and has joined no federation");
    for (const federation of federations) {
      const at = await ground(federation);
      try {
        await look(at, requestId);
        return at;
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  async function everywhere<T>(work: (at: Ground) => Promise<readonly T[]>): Promise<readonly T[]> {
    const found: T[] = [];
    for (const federation of await all()) found.push(...(await work(await ground(federation))));
    return found;
  }

  const calls: FederationClient = {
    federations: async () => (await all()).map((federation) => infoOf(open, federation)),
    createFederation: (input) => createFederation(open, input, reaching),
    joinFederation: (input) => joinFederation(open, input, reaching),
    async checkFederation(input) {
      return checkFederation(open, await joined(input.federation), membersOf, reaching);
    },
    async auditFederation(input) {
      const federation = await joined(input.federation);
      return auditFederation(open, federation, membersOf(federation));
    },
    async federatedKeys() {
      const frozen = new Set<string>();
      for (const federation of await all()) for (const id of await learnKeys(federation)) frozen.add(id);
      return heldIn(open).federatedKeys.map((key) => keyInfo(key, frozen.has(key.keyId)));
    },
    async federatedKey(input) {
      const key = await keyOf(input.key);
      const frozen = await learnKeys(byId(key.federationId));
      return keyInfo(heldIn(open).federatedKeys.find(({ keyId }) => keyId === key.keyId) ?? key, frozen.has(key.keyId));
    },
    async generateFederated(input) {
      const { at, key } = await newKey(input);
      return generateKey(at, key);
    },
    async importFederated(input) {
      try {
        const { at, key } = await newKey(input);
        return await importKey(at, key, input.value, input.origin ?? "imported");
      } finally {
        wipe(input.value);
      }
    },
    async signFederated({ key: name, message, amount, form = "message", input = 0, hedge: hedgeName = null }) {
      const key = await keyOf(name);
      const at = await ground(byId(key.federationId));
      const { type } = key.certificate.certificate;
      const hedge = hedgeName === null ? null : await hedgeOf(open, hedgeName, type === "secp256k1" || type === "p256");
      try {
        const { value, ...result } = await signWithKey(at, key, message, amount, { form, input }, hedge);
        wipe(value ?? undefined);
        return result;
      } finally {
        wipe(hedge?.secret, hedge?.fresh);
      }
    },
    async releaseFederated({ key: name, purpose }) {
      const key = await keyOf(name);
      return releaseKey(await ground(byId(key.federationId)), key, purpose);
    },
    async reshareFederated({ key: name, mode, threshold, holders }) {
      const key = await keyOf(name);
      return reshareKey(await ground(byId(key.federationId)), key, { mode, threshold, holders });
    },
    federatedRequests: () => everywhere(listRequests),
    async federatedRequest(input) {
      const requestId = requestIdOf(input.requestId);
      const at = await groundOfRequest(requestId);
      return namedInfo(at, await look(at, requestId));
    },
    async continueRequest(input) {
      const requestId = requestIdOf(input.requestId);
      const at = await groundOfRequest(requestId);
      const held = heldRequest(at, requestId);
      if (!held) {
        throw new Fault("not_found", "this request is not open on this device", {
          hint: `keyhold request show ${requestId}`,
        });
      }
      const { kind } = held.request.request.body;
      if (kind === "generate" || kind === "import") return { ...(await goOnMaking(at, held)), value: null };
      if (kind === "reshare") return { ...(await goOnResharing(at, held)), value: null };
      return goOnUsing(at, held);
    },
    async cancelRequest(input) {
      const requestId = requestIdOf(input.requestId);
      return cancelRequest(await groundOfRequest(requestId), requestId);
    },
    approvals: () => everywhere(approvalsOf),
    async vote({ requestId: text, verdict, reason }) {
      const requestId = requestIdOf(text);
      return castVote(await groundOfRequest(requestId), requestId, verdict, reason);
    },
    async policies(input) {
      return listPolicies(await ground(await joined(input.federation)));
    },
    async setPolicy({ federation, document }) {
      return putPolicy(await ground(await joined(federation)), document);
    },
  };

  return {
    calls,
    async end() {
      await Promise.all([...retired, ...[...opened.values()].map(({ members }) => members)].map((one) => one.end()));
    },
  };
}
