import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { asHashId, type KeyringId, type UserId } from "../../ids.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";
import { manifestHash, verifyManifest } from "../../protocol/federation/manifest.ts";
import { proveEquivocation } from "../../protocol/keyring/evidence.ts";
import { keyringIdOf, type Party } from "../../protocol/keyring/keyring.ts";
import type { SignedResponse } from "../../protocol/keyring/response.ts";
import type { Tx } from "../../storage/store.ts";
import { encodeJson } from "../../wire/codec.ts";
import type { KeyringView, PartyView } from "../../wire/keyring/views.ts";
import type { InputOf } from "../../wire/operations.ts";
import { listStored, putStored, readStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import {
  ADMINS_MAX,
  FORMER_MAX,
  KEYRING,
  KEYRING_MADE,
  type KeyringBody,
  type KeyringParty,
  keyText,
  PARTY_HEALTH,
  type PartyHealthBody,
} from "./documents.ts";
import { recorded, type Tell } from "./events.ts";
import { byIndex, checkParties, demandOwnName, verifyWholeManifest } from "./keyringrules.ts";
import { isEnrolled, userOfKey } from "./people.ts";
import type { RegistryService, RegistrySite } from "./service.ts";

export { snapshotOf } from "./keyringrules.ts";

type Keyrings = Pick<RegistryService, "keyring.create" | "keyring.list" | "keyring.get" | "keyring.change">;

/** Keyrings in one answer: as many as the codec takes, and about half of a body. */
const PAGE = 8;
const PAGE_BYTES = 64 * 1_024;
/** Keyrings that one account makes. */
const MADE_MAX = 32;
/** How old the note is that a party was seen, at most: polls do not write each time. */
const SEEN_MS = 10_000;

const noSuchKeyring = () => new Fault("not_found", "no such keyring");

/** @throws Fault not_found, corrupt */
export async function readKeyring(tx: Tx, keyringId: KeyringId): Promise<Stored<KeyringBody>> {
  const found = await readStored(tx, KEYRING, keyringId);
  if (!found) throw noSuchKeyring();
  return found;
}

async function save(tx: Tx, row: Stored<KeyringBody>, value: KeyringBody): Promise<Stored<KeyringBody>> {
  const next = { ...row, value };
  if (!(await putStored(tx, KEYRING, next, row.version))) throw changedMeanwhile();
  return { ...next, version: row.version + 1 };
}

/**
 * Keeps two contradicting responses of a party and leaves it out of new snapshots, until an admin clears it.
 *
 * @returns false, and nothing changed, for whoever never was a party of it or is in quarantine already.
 * @throws Fault integrity when the two prove nothing; not_found, unavailable
 */
export async function quarantine(
  tx: Tx,
  keyringId: KeyringId,
  partyKey: Uint8Array,
  first: SignedResponse,
  second: SignedResponse,
  nowMs: number,
): Promise<boolean> {
  const proof = proveEquivocation(first, second);
  if (proof.keyring !== keyringId || !equalBytes(proof.party, partyKey))
    throw new Fault("integrity", "this proof is about another party or keyring");
  const row = await readKeyring(tx, keyringId);
  const isIt = ({ party }: KeyringParty) => equalBytes(party.key, partyKey);
  const known = row.value.evidence.some((one) => equalBytes(one.first.response.key, partyKey));
  // who has left meanwhile, and answers for a request of before, finds it on coming back
  const left = !row.value.parties.some(isIt) && row.value.former.some(({ key }) => equalBytes(key, partyKey));
  if (!row.value.parties.some((one) => isIt(one) && !one.quarantined) && (!left || known)) return false;
  const parties = row.value.parties.map((one) => (isIt(one) ? { ...one, quarantined: true } : one));
  const others = row.value.evidence.filter((one) => !equalBytes(one.first.response.key, partyKey));
  const evidence = [...others, { first, second, atMs: nowMs }].slice(-SERVERS_MAX);
  await save(tx, row, { ...row.value, parties, evidence });
  return true;
}

/** What is heard of a party: what its connector says of itself, and that it has responded. */
export interface Heard {
  readonly health?: Pick<PartyHealthBody, "version" | "state" | "deadLetters">;
  readonly responded?: boolean;
}

const UNHEARD: PartyHealthBody = { lastSeenAtMs: null, lastResponseAtMs: null, version: "", state: "", deadLetters: 0 };

/**
 * Notes what is heard of a party, for all keyrings that name its key. Says nothing new for polls that follow each
 * other within 10 s.
 *
 * @throws Fault unavailable, corrupt
 */
export async function partyHeard(tx: Tx, key: Uint8Array, heard: Heard, nowMs: number): Promise<void> {
  const before = await readStored(tx, PARTY_HEALTH, keyText(key));
  const was = before?.value ?? UNHEARD;
  const { version, state, deadLetters } = heard.health ?? was;
  const same = version === was.version && state === was.state && deadLetters === was.deadLetters;
  const seen = was.lastSeenAtMs !== null && nowMs - was.lastSeenAtMs < SEEN_MS && nowMs >= was.lastSeenAtMs;
  if (same && seen && !heard.responded) return;
  const lastResponseAtMs = heard.responded ? nowMs : was.lastResponseAtMs;
  const value = { version, state, deadLetters, lastSeenAtMs: nowMs, lastResponseAtMs };
  const row = { id: keyText(key), owner: "", place: before?.place ?? nowMs, value };
  if (!(await putStored(tx, PARTY_HEALTH, row, before?.version ?? 0))) throw changedMeanwhile();
}

/** What keyrings ask of requests. */
export interface KeyringQuestions {
  /** Items of open requests of a keyring that a party's key has not answered. */
  backlogOf(tx: Tx, keyringId: KeyringId, partyKey: Uint8Array): Promise<number>;
}

async function partyView(tx: Tx, keyringId: KeyringId, one: KeyringParty, ask: KeyringQuestions): Promise<PartyView> {
  const { party, quarantined } = one;
  const health = (await readStored(tx, PARTY_HEALTH, keyText(party.key)))?.value ?? UNHEARD;
  const enrolled = (await userOfKey(tx, "party", party.key)) !== undefined;
  return { party, quarantined, enrolled, ...health, backlog: await ask.backlogOf(tx, keyringId, party.key) };
}

async function viewOf(tx: Tx, row: Stored<KeyringBody>, userId: UserId, ask: KeyringQuestions): Promise<KeyringView> {
  const { name, manifest, threshold, fees, active, admins, evidence, createdAtMs } = row.value;
  const keyringId = asHashId<KeyringId>(row.id);
  const parties: PartyView[] = [];
  for (const one of row.value.parties) parties.push(await partyView(tx, keyringId, one, ask));
  const own = admins.includes(userId);
  return {
    ...{ keyringId, name, manifest, threshold, fees, active, parties, own, createdAtMs },
    // accounts are each other's business only among admins; evidence names requests and keys of workspaces
    admins: own ? [...admins] : [],
    evidence: own ? [...evidence] : [],
  };
}

async function create(
  site: RegistrySite,
  tx: Tx,
  tell: Tell,
  userId: UserId,
  { name, nonce, manifest, threshold, fees, parties }: InputOf<"keyring.create">,
): Promise<Stored<KeyringBody>> {
  const keyringId = keyringIdOf(site.identity.publicKey, name, nonce);
  const before = await readStored(tx, KEYRING, keyringId);
  if (before) {
    if (before.value.admins.includes(userId)) return before;
    throw new Fault("conflict", "another account has made a keyring of that name with the same random bytes");
  }
  if ((await listStored(tx, KEYRING_MADE, userId, null, MADE_MAX)).length >= MADE_MAX)
    throw new Fault("too_large", "this account has made too many keyrings");
  const nowMs = site.ctx.now();
  const value: KeyringBody = {
    ...{ name, manifest, threshold, fees, active: true, admins: [userId], former: [], evidence: [] },
    parties: byIndex(parties.map((party) => ({ party, quarantined: false }))),
    createdAtMs: nowMs,
  };
  const made =
    (await putStored(tx, KEYRING, { id: keyringId, owner: "", place: nowMs, value }, 0)) &&
    (await putStored(tx, KEYRING_MADE, { id: keyringId, owner: userId, place: nowMs, value: {} }, 0));
  if (!made) throw changedMeanwhile();
  await tell({ event: "keyring.created", keyringId, detail: name });
  return readKeyring(tx, keyringId);
}

type Change = InputOf<"keyring.change">["change"];

const withoutParty = (keyring: KeyringBody, name: string) => {
  const found = keyring.parties.find(({ party }) => party.name === name);
  if (!found) throw new Fault("not_found", "this keyring has no party of that name");
  return { found, rest: keyring.parties.filter((one) => one !== found) };
};

/** A keyring as a change leaves it. @throws Fault bad_input, integrity, conflict, not_found, too_large */
async function changed(tx: Tx, keyring: KeyringBody, change: Change): Promise<KeyringBody> {
  switch (change.set) {
    case "partyAdded": {
      const { party } = change;
      const same = (one: Party) =>
        one.name === party.name && one.index === party.index && equalBytes(one.key, party.key);
      if (keyring.parties.some((one) => same(one.party))) return keyring;
      demandOwnName(keyring, party);
      // what it has once said stays said, whatever it is called now
      const quarantined = keyring.evidence.some((one) => equalBytes(one.first.response.key, party.key));
      return { ...keyring, parties: byIndex([...keyring.parties, { party, quarantined }]) };
    }
    case "partyRemoved": {
      const { found, rest } = withoutParty(keyring, change.name);
      if (rest.length < keyring.threshold)
        throw new Fault("conflict", `${keyring.threshold} parties of this keyring must agree: it would have fewer`, {
          hint: "lower its threshold or add a party first",
        });
      const former = [...keyring.former.filter(({ name }) => name !== change.name), found.party];
      if (former.length > FORMER_MAX) throw new Fault("too_large", "this keyring has had too many parties");
      return { ...keyring, parties: rest, former };
    }
    case "partyCleared": {
      const { found, rest } = withoutParty(keyring, change.name);
      return { ...keyring, parties: byIndex([...rest, { ...found, quarantined: false }]) };
    }
    case "threshold":
      return { ...keyring, threshold: change.threshold };
    case "fees":
      return { ...keyring, fees: change.fees };
    case "active":
      return { ...keyring, active: change.active };
    case "adminAdded": {
      if (keyring.admins.includes(change.userId)) return keyring;
      if (!(await tx.account(change.userId))) throw new Fault("not_found", "there is no such account");
      if (keyring.admins.length >= ADMINS_MAX) throw new Fault("too_large", "this keyring has too many admins");
      return { ...keyring, admins: [...keyring.admins, change.userId] };
    }
    case "adminRemoved": {
      const admins = keyring.admins.filter((one) => one !== change.userId);
      if (admins.length === keyring.admins.length) throw new Fault("not_found", "that account is no admin of it");
      if (admins.length === 0) throw new Fault("conflict", "the last admin of a keyring stays");
      return { ...keyring, admins };
    }
    case "manifest": {
      const { manifest } = keyring.manifest;
      if (equalBytes(manifestHash(manifest), manifestHash(change.manifest.manifest))) return keyring;
      verifyManifest(change.manifest, manifest);
      return { ...keyring, manifest: change.manifest };
    }
  }
}

/** The words of an event about a change. */
function wordsOf(change: Change): string {
  switch (change.set) {
    case "partyAdded":
      return `party ${change.party.name} added`;
    case "partyRemoved":
      return `party ${change.name} removed`;
    case "partyCleared":
      return `party ${change.name} cleared`;
    case "threshold":
      return `threshold ${change.threshold}`;
    case "fees":
      return `fees ${change.fees.key} a key, ${change.fees.signature} a signature`;
    case "active":
      return change.active ? "active" : "not active";
    case "adminAdded":
      return "admin added";
    case "adminRemoved":
      return "admin removed";
    case "manifest":
      return `manifest of epoch ${change.manifest.manifest.epoch}`;
  }
}

/** Keyrings: parties beside the servers of one federation (docs/protocol.md §9.1). */
export function createKeyrings(site: RegistrySite, ask: KeyringQuestions): Keyrings {
  const { ctx } = site;

  /** Whoever has a key here may see keyrings; nobody else learns which ones there are. */
  async function demandSeeing(tx: Tx, userId: UserId): Promise<void> {
    if (!(await isEnrolled(tx, userId))) throw new Fault("denied", "this account has no key at this registry");
  }

  /** An admin without a key sees its own keyrings. */
  async function list(tx: Tx, userId: UserId, after: KeyringId | null) {
    const seesAll = await isEnrolled(tx, userId);
    let from: Stored<KeyringBody> | null = after === null ? null : await readKeyring(tx, after);
    const items: KeyringView[] = [];
    let bytes = 0;
    for (;;) {
      const rows = await listStored(tx, KEYRING, "", from, PAGE + 1);
      for (const row of rows) {
        from = row;
        if (!seesAll && !row.value.admins.includes(userId)) continue;
        bytes += encodeJson(KEYRING.codec, row.value).length;
        if (items.length >= PAGE || (items.length > 0 && bytes > PAGE_BYTES)) return { items, more: true };
        items.push(await viewOf(tx, row, userId, ask));
      }
      if (rows.length <= PAGE) return { items, more: false };
    }
  }

  async function change(tx: Tx, tell: Tell, userId: UserId, keyringId: KeyringId, given: Change) {
    const row = await readStored(tx, KEYRING, keyringId);
    if (!row?.value.admins.includes(userId)) {
      await demandSeeing(tx, userId);
      throw row ? new Fault("denied", "only its admins change a keyring") : noSuchKeyring();
    }
    const value = await changed(tx, row.value, given);
    if (value === row.value) return row;
    checkParties(
      value.manifest.manifest,
      value.parties.map(({ party }) => party),
      value.threshold,
    );
    await tell({ event: "keyring.changed", keyringId, detail: wordsOf(given) });
    return save(tx, row, value);
  }

  return {
    async "keyring.create"(caller, input) {
      const { userId } = caller.account;
      verifyWholeManifest(input.manifest);
      checkParties(input.manifest.manifest, input.parties, input.threshold);
      const view = await recorded(
        site,
        async (tx, tell) => viewOf(tx, await create(site, tx, tell, userId, input), userId, ask),
        userId,
      );
      caller.concerns(view.keyringId);
      return view;
    },
    "keyring.list": ({ account: { userId } }, { after }) => ctx.store.transaction((tx) => list(tx, userId, after)),
    "keyring.get": ({ account: { userId } }, { keyringId }) =>
      ctx.store.transaction(async (tx) => {
        const row = await readStored(tx, KEYRING, keyringId);
        if (!row?.value.admins.includes(userId)) await demandSeeing(tx, userId);
        if (!row) throw noSuchKeyring();
        return viewOf(tx, row, userId, ask);
      }),
    "keyring.change": ({ account: { userId } }, { keyringId, change: given }) =>
      recorded(
        site,
        async (tx, tell) => viewOf(tx, await change(tx, tell, userId, keyringId, given), userId, ask),
        keyringId,
      ),
  };
}
