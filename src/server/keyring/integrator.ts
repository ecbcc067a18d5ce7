import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { ADDRESS_RULES, type AddressInput, addressOf } from "../../formats/address.ts";
import { asHashId, type FederatedKeyId, type KeyringRequestId, type WorkspaceId } from "../../ids.ts";
import type { Certificate } from "../../protocol/federation/certificate.ts";
import type { Party } from "../../protocol/keyring/keyring.ts";
import { isOpenLife, type KeyringStatus } from "../../protocol/keyring/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import { INTEGRATOR_PAGE, type PARTY_STANDS } from "../../wire/keyring/integrator.ts";
import type { OutputOf } from "../../wire/operations.ts";
import { listStored, readStored, type Stored } from "../documents.ts";
import { workspaceCredits } from "./balances.ts";
import { WORKSPACE } from "./documents.ts";
import { eventsAfter } from "./events.ts";
import { readKey } from "./keykeeping.ts";
import {
  ASKED,
  ITEM,
  KEY_OF,
  type KeyRow,
  keysOwner,
  OF_STATUS,
  REQUEST,
  type RequestRow,
  statusEntryId,
  statusOwner,
} from "./requestdocuments.ts";
import type { RegistryService, RegistrySite, RegistryTokenOperation } from "./service.ts";
import { headOf, noSuchWorkspace } from "./workspaces.ts";

type RequestShown = OutputOf<"integrator.request">;
type KeyShown = OutputOf<"integrator.key">;

/** The same answer for what never was and for what is another workspace's (P8). */
const noSuchRequest = () => new Fault("not_found", "the workspace has no such request");
const noSuchKey = () => new Fault("not_found", "the workspace has no such key");

/** A request of this workspace. @throws Fault not_found, corrupt */
async function requestOf(tx: Tx, workspaceId: WorkspaceId, id: KeyringRequestId): Promise<Stored<RequestRow>> {
  const row = await readStored(tx, REQUEST, id);
  if (row?.value.workspaceId !== workspaceId) throw noSuchRequest();
  return row;
}

/** A key of this workspace. @throws Fault not_found, corrupt */
async function keyOf(tx: Tx, workspaceId: WorkspaceId, id: FederatedKeyId): Promise<Stored<KeyRow>> {
  const row = await readKey(tx, id);
  if (row?.value.workspaceId !== workspaceId) throw noSuchKey();
  return row;
}

function standOf({ life }: RequestRow, { key }: Party): (typeof PARTY_STANDS)[number] {
  if (life.parties.some((one) => one.excluded && equalBytes(one.key, key))) return "excluded";
  const said = life.items.map(({ responses }) => responses.find(({ response }) => equalBytes(response.key, key)));
  if (said.some((one) => one?.response.verdict === "rejected")) return "rejected";
  return said.every((one) => one !== undefined) ? "answered" : "waiting";
}

async function itemShown(tx: Tx, { life }: RequestRow, id: RequestShown["items"][number]["itemId"]) {
  const item = await readStored(tx, ITEM, id);
  const asked = await readStored(tx, ASKED, id);
  if (!item || !asked) throw new Fault("corrupt", "a request lies in the database without its items");
  const { body } = asked.value.request.request;
  const certificate = item.value.certificate?.certificate;
  const type = "type" in body ? body.type : certificate?.type;
  if (type === undefined) throw new Fault("corrupt", "a signature is asked for without its key");
  const keyId = "keyId" in body ? body.keyId : null;
  // of a new key or a signature that too few have confirmed nothing is told
  const result = life.status === "fulfilled";
  const known = keyId !== null || result ? certificate : undefined;
  return {
    itemId: id,
    keyId: known?.keyId ?? keyId,
    type,
    publicKey: known?.publicKey.toHex() ?? null,
    signature: (result && item.value.result?.toHex()) || null,
  };
}

async function requestShown(tx: Tx, { id, value }: Stored<RequestRow>): Promise<RequestShown> {
  const { life, parties, fee, why, createdAtMs, updatedAtMs } = value;
  const items: RequestShown["items"][number][] = [];
  for (const { itemId } of life.items) items.push(await itemShown(tx, value, itemId));
  return {
    requestId: asHashId(id),
    keyringId: life.keyringId,
    kind: life.kind,
    status: life.status,
    approved: life.approved,
    why,
    fee,
    threshold: life.threshold,
    parties: parties.map((party) => ({ name: party.name, state: standOf(value, party) })),
    items,
    createdAtMs,
    updatedAtMs,
    expiresAtMs: life.expiresAtMs,
  };
}

/** Newest first, of all or of one status. */
async function requestIds(
  tx: Tx,
  workspaceId: WorkspaceId,
  status: KeyringStatus | null,
  from: Stored<RequestRow> | null,
  limit: number,
): Promise<readonly string[]> {
  if (status === null) return (await listStored(tx, REQUEST, workspaceId, from, limit)).map(({ id }) => id);
  const last = from && { place: from.place, id: statusEntryId(status, asHashId(from.id)) };
  const rows = await listStored(tx, OF_STATUS, statusOwner(workspaceId, status), last, limit);
  return rows.map(({ id }) => id.slice(status.length + 1));
}

async function keyShown(tx: Tx, { id, value }: Stored<KeyRow>): Promise<KeyShown> {
  const { certificate } = value.certificate;
  const request = (await readStored(tx, REQUEST, value.requestId))?.value;
  const confirms = (party: Party) =>
    !request?.life.parties.some(({ key, excluded }) => excluded && equalBytes(key, party.key)) &&
    value.responses.some(
      ({ response }) =>
        response.verdict === "fulfilled" && response.keyId === id && equalBytes(response.key, party.key),
    );
  return {
    keyId: asHashId(id),
    keyringId: value.keyringId,
    requestId: value.requestId,
    type: certificate.type,
    publicKey: certificate.publicKey.toHex(),
    shown: value.released ? "released" : "delegated",
    threshold: certificate.threshold,
    confirmedBy: request?.parties.filter(confirms).map(({ name }) => name) ?? [],
    createdAtMs: value.createdAtMs,
  };
}

/** What an address is made of: servers have tweaked a `schnorr` key already, and to tweak it again locks the money. */
function addressInput(
  { type, publicKey }: Certificate,
  { as, network, prefix }: Pick<AddressInput, "as" | "network" | "prefix">,
): AddressInput {
  if (ADDRESS_RULES[as].type !== type)
    throw new Fault("bad_input", `${as} is for keys of type ${ADDRESS_RULES[as].type}: this one is ${type}`);
  const about = { as, network, prefix };
  return as === "btc-p2tr" ? { ...about, outputKey: publicKey } : { ...about, publicKey };
}

/**
 * What programs read of a workspace with its token (docs/protocol.md §9.7).
 *
 * @param sweep Ends what time has ended: called when a request is read after its end.
 */
export function createIntegrator(
  { ctx }: Pick<RegistrySite, "ctx">,
  sweep: () => Promise<void>,
): Pick<RegistryService, RegistryTokenOperation> {
  const { store } = ctx;

  /** No request is shown as open after its time. */
  async function inTime<T>(read: () => Promise<T>, shown: (found: T) => readonly RequestShown[]): Promise<T> {
    const found = await read();
    if (!shown(found).some((request) => isOpenLife(request) && request.expiresAtMs <= ctx.now())) return found;
    await sweep();
    return read();
  }

  return {
    "integrator.workspace": ({ workspaceId }) =>
      store.transaction(async (tx) => {
        const row = await readStored(tx, WORKSPACE, workspaceId);
        if (!row) throw noSuchWorkspace();
        const { document, version } = await headOf(tx, workspaceId);
        return {
          workspaceId,
          ...row.value,
          version,
          owners: document.approvers.map(({ name }) => name),
          ...(await workspaceCredits(tx, workspaceId)),
        };
      }),

    "integrator.events": ({ workspaceId }, { after }) =>
      store.transaction(async (tx) => {
        const { items, more } = await eventsAfter(tx, workspaceId, after);
        const shown = items.map(({ workspaceId: _, ...event }) => event);
        return { items: shown, more, last: items.at(-1)?.seq ?? after };
      }),

    "integrator.requests": ({ workspaceId }, { status, after }) => {
      const read = async (tx: Tx) => {
        const from = after === null ? null : await requestOf(tx, workspaceId, after);
        const ids = await requestIds(tx, workspaceId, status, from, INTEGRATOR_PAGE.requests + 1);
        const items: RequestShown[] = [];
        for (const id of ids.slice(0, INTEGRATOR_PAGE.requests)) {
          items.push(await requestShown(tx, await requestOf(tx, workspaceId, asHashId(id))));
        }
        return { items, more: ids.length > INTEGRATOR_PAGE.requests };
      };
      return inTime(
        () => store.transaction(read),
        ({ items }) => items,
      );
    },

    "integrator.request": ({ workspaceId }, { requestId }) => {
      const read = async (tx: Tx) => requestShown(tx, await requestOf(tx, workspaceId, requestId));
      return inTime(
        () => store.transaction(read),
        (request) => [request],
      );
    },

    "integrator.keys": ({ workspaceId }, { keyringId, type, after }) =>
      store.transaction(async (tx) => {
        const from = after === null ? null : await keyOf(tx, workspaceId, after);
        const limit = INTEGRATOR_PAGE.keys + 1;
        const owner = keysOwner(workspaceId, keyringId, type);
        const last = from && { place: from.place, id: `${owner}:${from.id}` };
        const ids = (await listStored(tx, KEY_OF, owner, last, limit)).map(({ id }) => id.slice(owner.length + 1));
        const items: KeyShown[] = [];
        for (const id of ids.slice(0, INTEGRATOR_PAGE.keys)) {
          items.push(await keyShown(tx, await keyOf(tx, workspaceId, asHashId(id))));
        }
        return { items, more: ids.length > INTEGRATOR_PAGE.keys };
      }),

    "integrator.key": ({ workspaceId }, { keyId }) =>
      store.transaction(async (tx) => keyShown(tx, await keyOf(tx, workspaceId, keyId))),

    "integrator.address": ({ workspaceId }, { keyId, as, network, prefix }) =>
      store.transaction(async (tx) => {
        const { certificate } = (await keyOf(tx, workspaceId, keyId)).value.certificate;
        return { address: addressOf(addressInput(certificate, { as, network, prefix })) };
      }),
  };
}
