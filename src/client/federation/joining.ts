import { Fault } from "../../errors.ts";
import { approvalSigner, FEDERATION_SECRET_BYTES, requestSigner } from "../../protocol/federation/credentials.ts";
import type { FederationServer, Manifest, SignedManifest } from "../../protocol/federation/manifest.ts";
import { parseServerUrl } from "../../wire/http.ts";
import { lockKey } from "../../wire/lockedmemory.ts";
import { parsePin } from "../../wire/pin.ts";
import type { FederationClient, FederationInfo } from "../federationapi.ts";
import { connect } from "../login.ts";
import { isAway, type Open, online } from "../opened.ts";
import type { FederationPin, HeldFederation } from "./held.ts";
import { changeHeld, heldIn, newestOf, secretIn, withFederation } from "./keeping.ts";
import { chainTo, followTo, isPinned } from "./manifests.ts";
import { atServer, enough, type Members, openMembers, type Reaching } from "./members.ts";
import { type Asked, askServer, sourceAt, tryAll } from "./reaching.ts";

type Input = Parameters<FederationClient["joinFederation"]>[0];

/** A federation as the client tells of it. */
export function infoOf(open: Open, federation: HeldFederation): FederationInfo {
  const { federationId, name } = federation;
  const { epoch, threshold, servers } = newestOf(federation);
  const secret = secretIn(open);
  return {
    name,
    federationId,
    epoch,
    threshold,
    servers: servers.map(({ index, url, pin }) => ({ index, url, pin })),
    requestKeyHex: requestSigner(secret, federationId).publicKey.toHex(),
    approvalKeyHex: approvalSigner(secret, federationId).publicKey.toHex(),
  };
}

/**
 * Joins a federation by the URL and pin of one of its servers: verifies what all members have signed, holds every
 * server that can be reached to it, pins it, and registers with each (docs/protocol.md §8.2). The same call again goes
 * on with servers that were away.
 *
 * @throws Fault not_found, ambiguous; denied where another device has the secret, or a server lets nobody in;
 *   integrity that names the server; unavailable where too few servers are there
 */
export async function joinFederation(open: Open, input: Input, reaching: Reaching = {}): Promise<FederationInfo> {
  const { reach = connect } = reaching;
  const contact = { url: parseServerUrl(input.url).origin, pin: parsePin(input.pin) };
  const asked = await askServer(contact, reach, open.around);
  const shown = chosen((await asked.ask("federation.info", {})).federations, input.name);
  const { federationId } = shown.manifest;
  if (shown.manifest.servers.every(({ pin }) => pin !== contact.pin))
    throw new Fault("integrity", "the server shows a federation that it is not a member of", {
      culprits: [contact.url],
    });
  const before = heldIn(open).federations.find((one) => one.federationId === federationId) ?? null;
  const sources = [asked, ...(await others(open, shown.manifest, contact.pin, reach))].map(sourceAt);
  const pinned: HeldFederation = before
    ? await followTo(before, shown, sources)
    : await firstPin(open, shown, await chainTo(shown, sources));
  await holdAllTo(open, pinned, reach);
  await drawSecret(open);
  await changeHeld(open, (held) => {
    const known = held.federations.some((one) => one.federationId === federationId);
    const { manifests } = pinned;
    return {
      ...withFederation(held, federationId, (one) =>
        one.manifests.length < manifests.length ? { ...one, manifests } : one,
      ),
      ...(!known && { federations: [...held.federations, pinned] }),
      federationPins: held.federationPins.filter((one) => one.federationId !== federationId),
    };
  });
  const joined = heldIn(open).federations.find((one) => one.federationId === federationId) ?? pinned;
  const members = openMembers(open, joined, reaching);
  try {
    await enter(open, members, new Map(input.invites.map(({ url, code }) => [parseServerUrl(url).origin, code])));
  } finally {
    await members.end();
  }
  return infoOf(open, joined);
}

function chosen(federations: readonly SignedManifest[], name: string | null): SignedManifest {
  const found = federations.filter(
    ({ manifest }) => name === null || manifest.name === name || manifest.federationId === name,
  );
  const [one, another] = found;
  if (one && !another) return one;
  if (!one)
    throw new Fault(
      "not_found",
      name === null ? "the server is in no federation" : `the server is in no federation "${name}"`,
      { hint: "once every operator has accepted, the one who drafted it runs keyhold federation create again" },
    );
  throw new Fault("ambiguous", "the server is in more than one such federation", {
    hint: `choose one with --name: ${found.map(({ manifest }) => `${manifest.name} ${manifest.federationId}`).join(", ")}`,
  });
}

/** Ways to the other members, for what the contact does not have: only a newcomer needs them. */
async function others(open: Open, manifest: Manifest, pin: string, reach: typeof connect): Promise<readonly Asked[]> {
  if (manifest.epoch === 1) return [];
  const found = await tryAll(
    manifest.servers.filter((one) => one.pin !== pin),
    (one) => askServer(one, reach, open.around),
  );
  return found.flatMap((one) => (one.ok ? [one.value] : []));
}

function firstPin(open: Open, shown: SignedManifest, manifests: readonly SignedManifest[]): HeldFederation {
  const { federationId, name } = shown.manifest;
  const { federations } = heldIn(open);
  if (federations.some((one) => one.name === name))
    throw new Fault("exists", `this vault has joined another federation of the name "${name}"`);
  return { federationId, name, manifests: [...manifests], joinedAtMs: open.around.now(), servers: [], policies: [] };
}

/**
 * Compares what every server that can be reached shows with what is pinned, and brings the manifest to one that missed
 * its completion. A server that is away, or answers nonsense, does not keep the others back; one that shows another
 * federation under this id does.
 *
 * @throws Fault integrity that names the server
 */
async function holdAllTo(open: Open, pinned: HeldFederation, reach: typeof connect): Promise<void> {
  const newest = pinned.manifests.at(-1);
  if (!newest) return;
  const looks = await tryAll(newest.manifest.servers, async (server) => {
    const asked = await askServer(server, reach, open.around);
    const { federations, identity } = await asked.ask("federation.info", {});
    const shown = federations.find(({ manifest }) => manifest.federationId === pinned.federationId);
    if (!shown || shown.manifest.epoch < newest.manifest.epoch) {
      await asked.ask("federation.complete", { manifest: newest });
    } else await followTo(pinned, shown, [sourceAt(asked)]);
    if (identity.toHex() !== server.identity.toHex())
      open.around.notice(`server ${server.index} (${server.url}) has another enclave key than the manifest names`);
  });
  for (const one of looks) {
    if (one.ok) continue;
    const fault = atServer(one.server, one.fault);
    if (fault.code === "integrity") throw fault;
    open.around.notice(`left for later: ${fault.message}`);
  }
}

/**
 * Draws F where the account has none; one that other devices have is theirs to hand over.
 *
 * @throws Fault denied where another device has it
 */
export async function drawSecret(open: Open): Promise<void> {
  if (heldIn(open).federationSecret !== null) return;
  if (open.box.model.bound !== null) {
    const sealed = await online(
      open,
      true,
      async (at) => (await at?.session.call("account.parcel", {}))?.output.sealed,
    );
    if (sealed) {
      throw new Fault("denied", "another device of this account has its federation secret already", {
        why: "a second one would make this device another member, with other keys",
        hint: "link this device (keyhold account device link on another one), or use the recovery kit (keyhold account recover)",
      });
    }
  }
  const secret = lockKey(open.around.random(FEDERATION_SECRET_BYTES));
  await changeHeld(open, (held) => (held.federationSecret === null ? { ...held, federationSecret: secret } : held));
}

const away = (fault: Fault): boolean => isAway(fault);

/** Registers with every server: enough of them now, the others at the next use. */
async function enter(open: Open, members: Members, invites: ReadonlyMap<string, string>): Promise<void> {
  const answers = await members.openAll(invites);
  const refused = answers.flatMap((one) => (one.ok ? [] : [one.fault]));
  for (const fault of refused) if (fault.code === "integrity") throw fault;
  const there = answers.length - refused.length;
  const first = refused.find((fault) => !away(fault)) ?? refused[0];
  const wanted = enough(members.manifest);
  if (first && there < wanted) {
    throw new Fault(
      away(first) ? "unavailable" : first.code,
      `only ${there} of ${answers.length} servers let this account in`,
      {
        why: refused.map(({ message }) => message).join("; "),
        hint:
          first.code === "denied"
            ? "give invites: --invite URL=CODE; then join again"
            : `${wanted} are needed: join again once they are there`,
      },
    );
  }
  for (const fault of refused) open.around.notice(`left for later: ${fault.message}`);
}

/** A server to ask, with the index that it is told by. */
type Contact = Pick<FederationServer, "index" | "url" | "pin">;

/**
 * Fetches the manifests of federations that a recovery kit or a device link has named, from servers that can be
 * reached; the others wait for the next call.
 */
export async function fetchPinned(open: Open, { reach = connect }: Reaching = {}): Promise<void> {
  for (const pin of heldIn(open).federationPins) {
    const found = await fetchOne(open, pin, reach);
    if (!found) continue;
    await changeHeld(open, (held) => ({
      ...held,
      federationPins: held.federationPins.filter(({ federationId }) => federationId !== pin.federationId),
      federations: held.federations.some(({ federationId }) => federationId === pin.federationId)
        ? held.federations
        : [...held.federations, found],
    }));
  }
}

async function fetchOne(open: Open, pin: FederationPin, reach: typeof connect): Promise<HeldFederation | null> {
  for (const [i, { url, pin: serverPin }] of pin.contacts.entries()) {
    const contact: Contact = { index: i + 1, url, pin: serverPin };
    try {
      const asked = await askServer(contact, reach, open.around);
      const source = sourceAt(asked);
      const { federations } = await asked.ask("federation.info", {});
      const newest = federations.find(({ manifest }) => manifest.federationId === pin.federationId);
      const named = newest && isPinned(newest, pin) ? newest : await source(pin.federationId, pin.epoch);
      if (!newest || !named || !isPinned(named, pin)) continue;
      const manifests = await chainTo(named, [source]);
      const { federationId, name } = pin;
      const joinedAtMs = open.around.now();
      const joined: HeldFederation = { federationId, name, manifests, joinedAtMs, servers: [], policies: [] };
      return newest.manifest.epoch > pin.epoch ? await followTo(joined, newest, [source]) : joined;
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      open.around.notice(`${url}: ${error.message}`);
    }
  }
  return null;
}
