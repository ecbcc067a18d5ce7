import { equalBytes, ZERO_HASH_BYTES } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";

import {
  checkManifest,
  type FederationServer,
  federationIdOf,
  isSignedBy,
  type Manifest,
  manifestBytes,
  manifestHash,
  type SignedManifest,
  verifyManifest,
} from "../../protocol/federation/manifest.ts";
import { isFederationName } from "../../wire/federation/records.ts";
import { parseServerUrl } from "../../wire/http.ts";
import type { OutputOf } from "../../wire/operations.ts";
import { parsePin } from "../../wire/pin.ts";
import type { FederationClient } from "../federationapi.ts";
import { connect } from "../login.ts";
import { isAway, type Open } from "../opened.ts";
import type { HeldFederation } from "./held.ts";
import { changeHeld, heldIn, newestOf } from "./keeping.ts";
import { withManifest } from "./manifests.ts";
import type { Reaching } from "./members.ts";
import { askServer, tryAll } from "./reaching.ts";

type Input = Parameters<FederationClient["createFederation"]>[0];
type Created = Awaited<ReturnType<FederationClient["createFederation"]>>;
type State = Created["roster"][number]["state"];
interface Party {
  readonly url: string;
  readonly pin: string;
}

/**
 * Drafts a federation among running servers, lays the manifest before each, and completes it once all operators have
 * accepted; the same call again goes on where it was (docs/protocol.md §8.1). With the name of a federation that this
 * vault has joined it drafts the next epoch. Without servers it goes on with the draft of that name.
 *
 * @throws Fault bad_input; not_found without servers and draft; unreachable while a server that is not known yet is away; integrity
 */
export async function createFederation(open: Open, input: Input, { reach = connect }: Reaching = {}): Promise<Created> {
  const { around } = open;
  const wanted = input.servers.length > 0 ? input : draftNamed(open, input.name);
  const servers = wanted.servers.map(({ url, pin }) => ({ url: parseServerUrl(url).origin, pin: parsePin(pin) }));
  if (servers.length < 2 || servers.length > SERVERS_MAX)
    throw new Fault("bad_input", `a federation has 2 to ${SERVERS_MAX} servers`);
  if (!isFederationName(input.name)) {
    throw new Fault("bad_input", `"${input.name}" cannot be a federation's name`, {
      why: "it is made of up to 64 lower-case letters, digits, . _ - and begins with a letter or digit",
    });
  }
  const { manifest, before } = await draftOf(open, { name: input.name, threshold: wanted.threshold, servers }, reach);
  const { federationId, epoch } = manifest;
  const parties = partiesOf(manifest, before && newestOf(before));
  const proposals = await tryAll(parties, async (party) => {
    const asked = await askServer(party, reach, around);
    await asked.ask("federation.propose", { manifest, before: before?.manifests.at(-1) ?? null });
    const shown = await asked.ask("federation.proposal", { federationId, epoch });
    if (!equalBytes(manifestBytes(shown.proposal.manifest), manifestBytes(manifest)))
      throw new Fault("integrity", "it shows another manifest than the one that was laid before it");
    return { asked, ...shown };
  });
  const faulty = proposals.find((one) => !one.ok && !isAway(one.fault));
  if (faulty && !faulty.ok) throw named(faulty.server, faulty.fault);
  const signed: SignedManifest = {
    manifest,
    signatures: manifest.servers
      .concat(before ? newestOf(before).servers : [])
      .filter((one, i, all) => all.findIndex((other) => equalBytes(other.identity, one.identity)) === i)
      .flatMap((one) => {
        const holding = proposals.find((shown) => shown.ok && isSignedBy(shown.value.proposal, one.identity));
        return holding?.ok
          ? holding.value.proposal.signatures.filter(
              (s) => equalBytes(s.identity, one.identity) && isSignedBy({ manifest, signatures: [s] }, one.identity),
            )
          : [];
      }),
  };
  const states = new Map<string, State>(
    proposals.map((one) => [one.server.url, one.ok ? one.value.state : "away"] as const),
  );
  if (isComplete(signed, before)) {
    const told = await tryAll(
      proposals.flatMap((one) => (one.ok ? [one] : [])),
      async ({ value }) => value.asked.ask("federation.complete", { manifest: signed }),
    );
    for (const one of told) if (one.ok) states.set(one.server.server.url, "member");
    for (const one of told) if (!one.ok && !isAway(one.fault)) throw named(one.server.server, one.fault);
  }
  const roster = parties.map(({ url }) => ({ url, state: states.get(url) ?? ("away" as const) }));
  const complete = roster.every(({ state }) => state === "member");
  await changeHeld(open, (held) => ({
    ...held,
    federationDrafts: complete
      ? held.federationDrafts.filter((one) => one.federationId !== federationId)
      : held.federationDrafts,
    federations: held.federations.map((one) =>
      complete && one.federationId === federationId && epoch === newestOf(one).epoch + 1
        ? withManifest(one, signed)
        : one,
    ),
  }));
  return { federationId, complete, roster };
}

const named = (party: Party, fault: Fault): Fault => {
  const { code, message, why, hint } = fault;
  return new Fault(code, `the server ${party.url}: ${message}`, {
    ...(why !== undefined && { why }),
    ...(hint !== undefined && { hint }),
    ...(code === "integrity" && { culprits: [party.url] }),
  });
};

/** The draft that this vault has laid before servers, or what it has become. @throws Fault not_found */
function draftNamed(open: Open, name: string): Manifest {
  const { federationDrafts, federations } = heldIn(open);
  const joined = federations.find((one) => one.name === name);
  const draft = federationDrafts.find((one) => one.name === name) ?? (joined && newestOf(joined));
  if (draft) return draft;
  throw new Fault("not_found", `this vault has no draft of a federation "${name}"`, {
    hint: "name its servers: --server URL#PIN …; once it is complete: keyhold federation join URL#PIN",
  });
}

/** Everybody who is asked: the members to be, and those of the epoch before. */
function partiesOf(manifest: Manifest, before: Manifest | null): readonly Party[] {
  const leaving = (before?.servers ?? []).filter(({ pin }) => manifest.servers.every((one) => one.pin !== pin));
  return [...manifest.servers, ...leaving];
}

function isComplete(signed: SignedManifest, before: HeldFederation | null): boolean {
  try {
    verifyManifest(signed, before && newestOf(before));
    return true;
  } catch (error) {
    if (error instanceof Fault && error.code === "integrity") return false;
    throw error;
  }
}

const sameParties = (a: readonly Party[], b: readonly Party[]): boolean =>
  a.length === b.length && a.every((one) => b.some((other) => other.url === one.url && other.pin === one.pin));

/** The draft that this vault has laid before these servers, the federation that they are already, or a new draft. */
async function draftOf(
  open: Open,
  input: Input,
  reach: typeof connect,
): Promise<{ manifest: Manifest; before: HeldFederation | null }> {
  const { federations, federationDrafts } = heldIn(open);
  const before = federations.find(({ name }) => name === input.name) ?? null;
  const asWanted = (one: Manifest) =>
    one.name === input.name && one.threshold === input.threshold && sameParties(one.servers, input.servers);
  if (before && asWanted(newestOf(before))) return { manifest: newestOf(before), before: previous(before) };
  const kept = federationDrafts.find((one) => asWanted(one) && (one.epoch === 1) === (before === null));
  if (kept && (before === null || kept.epoch === newestOf(before).epoch + 1)) return { manifest: kept, before };
  const infos = await tryAll(input.servers, async (party) => {
    const asked = await askServer(party, reach, open.around);
    return asked.ask("federation.info", {});
  });
  const all: { party: Party; info: OutputOf<"federation.info"> }[] = [];
  for (const one of infos) {
    if (!one.ok) throw named(one.server, one.fault);
    all.push({ party: one.server, info: one.value });
  }
  const there = before
    ? null
    : await formedBy(
        all.map(({ info }) => info),
        asWanted,
      );
  if (there) return { manifest: there, before: null };
  const manifest = before ? nextEpoch(newestOf(before), before, all, input.threshold) : firstEpoch(open, input, all);
  checkManifest(manifest);
  await changeHeld(open, (held) => ({
    ...held,
    federationDrafts: [...held.federationDrafts.filter(({ name }) => name !== input.name), manifest],
  }));
  return { manifest, before };
}

const previous = (federation: HeldFederation): HeldFederation | null =>
  federation.manifests.length > 1 ? { ...federation, manifests: federation.manifests.slice(0, -1) } : null;

/** What another vault, or this one before it lost its draft, has completed already. */
function formedBy(
  infos: readonly OutputOf<"federation.info">[],
  asWanted: (one: Manifest) => boolean,
): Manifest | null {
  const [first, ...others] = infos;
  const found = first?.federations.find(({ manifest }) => manifest.epoch === 1 && asWanted(manifest));
  const ids = others.map(({ federations }) => federations.map(({ manifest }) => manifest.federationId));
  return found && ids.every((known) => known.includes(found.manifest.federationId)) ? found.manifest : null;
}

type Known = readonly { readonly party: Party; readonly info: OutputOf<"federation.info"> }[];

const entry = (index: number, { party, info }: Known[number]): FederationServer => ({
  index,
  identity: info.identity,
  sealing: info.sealing,
  url: party.url,
  pin: party.pin,
  policy: info.policy,
});

function firstEpoch(open: Open, { name, threshold }: Input, all: Known): Manifest {
  const draft = {
    name,
    epoch: 1,
    threshold,
    servers: all.map((one, i) => entry(i + 1, one)),
    createdAtMs: open.around.now(),
    nonce: open.around.random(32),
    previous: ZERO_HASH_BYTES,
  };
  return { federationId: federationIdOf(draft), ...draft };
}

/** Whoever stays keeps the index; whoever comes gets one that nobody ever had. */
function nextEpoch(now: Manifest, { manifests }: HeldFederation, all: Known, threshold: number): Manifest {
  let last = Math.max(...manifests.flatMap(({ manifest }) => manifest.servers.map(({ index }) => index)));
  const servers = all.map((one) => {
    const old = now.servers.find(({ identity }) => equalBytes(identity, one.info.identity));
    if (!old) last += 1;
    return entry(old?.index ?? last, one);
  });
  servers.sort((a, b) => a.index - b.index);
  return { ...now, epoch: now.epoch + 1, threshold, servers, previous: manifestHash(now) };
}
