import { equalBytes } from "../../crypto/bytes.ts";
import { DEFAULTS } from "../../protocol/defaults.ts";
import { type FederationServer, rosterMin } from "../../protocol/federation/manifest.ts";
import type { FederationCheck, KeyCheck, ServerCheck } from "../federationapi.ts";
import { connect } from "../login.ts";
import type { Open } from "../opened.ts";
import type { HeldFederation } from "./held.ts";
import { changeHeld, heldIn, newestOf, serverIn, withFederation } from "./keeping.ts";
import { followTo } from "./manifests.ts";
import type { MemberAnswer, Members, Reaching } from "./members.ts";
import { askServer, sourceAt, type Tried, tryAll } from "./reaching.ts";
import { adoptKeys, type KeyStanding, keyViews, standings } from "./views.ts";

/** What a look at a server without a session tells. */
interface Look {
  readonly version: string;
  readonly latencyMs: number;
  readonly clockSkewMs: number;
  readonly tls: string;
  readonly wrong: string | null;
  /** Its enclave is not the one of the manifest: it can open no share. */
  readonly lost: boolean;
  readonly forgetful: boolean;
}

/** How the connection is protected, in words. */
function tlsOf({ url }: FederationServer, caPem: string | null): string {
  if (!url.startsWith("https:")) return "none (this machine)";
  return caPem === null ? "public authority" : "pinned identity";
}

/**
 * Looks at every server of a federation and takes later epochs in, which the members of the pinned one have signed.
 *
 * @returns The federation as it is now, with what was seen at each server.
 */
async function look(
  open: Open,
  federation: HeldFederation,
  { reach = connect }: Reaching,
): Promise<{ now: HeldFederation; looks: readonly Tried<FederationServer, Look>[] }> {
  const { around } = open;
  let now = federation;
  const lookAt = async (server: FederationServer): Promise<Look> => {
    const asked = await askServer(server, reach, around, serverIn(federation, server.index));
    const beganMs = around.now();
    const info = await asked.ask("federation.info", {});
    const endedMs = around.now();
    const shown = info.federations.find(({ manifest }) => manifest.federationId === federation.federationId);
    if (shown && shown.manifest.epoch >= newestOf(federation).epoch) {
      const followed = await followTo(federation, shown, [sourceAt(asked)]);
      if (newestOf(followed).epoch > newestOf(now).epoch) now = followed;
    }
    const skewMs = Math.round(info.atMs - (beganMs + endedMs) / 2);
    return {
      version: info.version,
      latencyMs: endedMs - beganMs,
      clockSkewMs: skewMs,
      tls: tlsOf(server, asked.caPem),
      lost: isLost(server, info),
      forgetful: shown === undefined,
      wrong: wrongWith(server, info, shown?.manifest.epoch ?? null, newestOf(federation).epoch, skewMs),
    };
  };
  const old = newestOf(federation).servers;
  const looks = [...(await tryAll(old, lookAt))];
  const came = newestOf(now).servers.filter(({ index }) => old.every((one) => one.index !== index));
  looks.push(...(await tryAll(came, lookAt)));
  const news = now;
  if (news !== federation) {
    await changeHeld(open, (held) =>
      withFederation(held, federation.federationId, (one) =>
        newestOf(one).epoch < newestOf(news).epoch ? { ...one, manifests: news.manifests } : one,
      ),
    );
  }
  return { now: news, looks };
}

interface EnclaveKeys {
  readonly identity: Uint8Array;
  readonly sealing: Uint8Array;
}

const isLost = (server: FederationServer, { identity, sealing }: EnclaveKeys): boolean =>
  !equalBytes(identity, server.identity) || !equalBytes(sealing, server.sealing);

function wrongWith(
  server: FederationServer,
  info: EnclaveKeys,
  epoch: number | null,
  pinned: number,
  skewMs: number,
): string | null {
  if (isLost(server, info))
    return "its enclave has other keys than the manifest names: it can open no share until its enclave/ is put back";
  if (epoch === null) return "it does not know this federation";
  if (epoch < pinned) return `it is still at epoch ${epoch}`;
  if (Math.abs(skewMs) > DEFAULTS.clockSkewMs) return `its clock is ${Math.round(skewMs / 1_000)} s off`;
  return null;
}

function serverCheck(
  { index, url }: FederationServer,
  seen: Tried<FederationServer, Look> | undefined,
  entered: MemberAnswer<unknown> | undefined,
): ServerCheck {
  if (!seen?.ok) {
    const state = seen?.fault.message ?? "it was not asked";
    return { index, url, state, version: null, latencyMs: null, clockSkewMs: null, tls: null };
  }
  const { version, latencyMs, clockSkewMs, tls, wrong } = seen.value;
  const refused = entered && !entered.ok ? entered.fault.message : null;
  return { index, url, state: wrong ?? refused ?? "ok", version, latencyMs, clockSkewMs, tls };
}

/** How servers stand, as far as it matters for keys; all by their indices. */
interface Standings {
  readonly answering: ReadonlySet<number>;
  /** Their enclave is another one. */
  readonly lost: ReadonlySet<number>;
  /** Their database is another one: the same enclave can be given shares anew. */
  readonly forgetful: ReadonlySet<number>;
  /** `URL#PIN` of a member that can tell them. */
  readonly entry: string;
}

function keyCheck(
  open: Open,
  { newest, certified, live: shown }: KeyStanding,
  least: number,
  { answering, lost, forgetful, entry }: Standings,
): KeyCheck {
  const live = shown.filter((index) => !lost.has(index));
  const { keyId, generation, threshold, holders } = newest.certificate.certificate;
  const name = heldIn(open).federatedKeys.find((one) => one.keyId === keyId)?.name ?? null;
  const missing = holders.filter((index) => !live.includes(index));
  const away = missing.filter((index) => !answering.has(index));
  const lacking = [...answering].some((index) => !live.includes(index));
  const gone = away.filter((index) => lost.has(index));
  const repair = `keyhold key repair ${name ?? keyId.slice(0, 16)}`;
  const back =
    gone.length > 0
      ? `put the enclave/ of server ${gone.join(", ")} back, or keyhold federation create without it, then keyhold key reshare`
      : away.every((index) => forgetful.has(index))
        ? `keyhold federation join ${entry}, then ${repair}`
        : `bring server ${away.filter((index) => !forgetful.has(index)).join(", ")} back`;
  const proposal =
    live.length < threshold
      ? `too few live shares: ${away.length > 0 ? back : "bring servers back that hold one"}`
      : (missing.length > away.length || live.length < least) && lacking
        ? repair
        : away.length > 0
          ? back
          : null;
  const refreshedAt = new Date(newest.refreshedAtMs).toISOString();
  return { name, keyId, generation, threshold, live, certified, refreshedAt, proposal };
}

/**
 * How a federation stands: every server's reachability, clock, version and TLS, and of each key who knows the
 * certificate and who has a live share; with what to do about it.
 *
 * @param membersOf Gives the sessions, after a later epoch was taken in.
 */
export async function checkFederation(
  open: Open,
  federation: HeldFederation,
  membersOf: (federation: HeldFederation) => Members,
  reaching: Reaching = {},
): Promise<FederationCheck> {
  const { now, looks } = await look(open, federation, reaching);
  const members = membersOf(now);
  const entered = await members.openAll();
  const { servers } = members.manifest;
  const checks = servers.map((server) =>
    serverCheck(
      server,
      looks.find((one) => one.server.index === server.index),
      entered.find(({ index }) => index === server.index),
    ),
  );
  const views = await keyViews(open, members, now);
  const lying = views.flatMap((one) => (!one.ok && one.fault.code === "integrity" ? [one] : []));
  const found = standings(views);
  await adoptKeys(open, now, found);
  // who is away may have its share still: there is nothing to repair before it answers
  const lost = new Set(looks.flatMap((one) => (one.ok && one.value.lost ? [one.server.index] : [])));
  const answering = new Set(views.flatMap((one) => (one.ok && !lost.has(one.server) ? [one.server] : [])));
  const forgetful = new Set(looks.flatMap((one) => (one.ok && one.value.forgetful ? [one.server.index] : [])));
  const teller = servers.find(({ index }) => answering.has(index));
  const entry = teller ? `${teller.url}#${teller.pin}` : "URL#PIN";
  const standing = { answering, lost, forgetful, entry };
  // of the key's own threshold: it may be older than the federation's
  const leastOf = ({ newest }: KeyStanding) => rosterMin(servers.length, newest.certificate.certificate.threshold);
  const keys = found.map((one) => keyCheck(open, one, leastOf(one), standing));
  const told = checks.map((check) => {
    const lie = lying.find((one) => one.server === check.index);
    const split = found.some(({ contradicting }) => contradicting.includes(check.index));
    if (lie && check.state === "ok") return { ...check, state: lie.fault.message };
    return split && check.state === "ok" ? { ...check, state: "it shows another certificate than the others" } : check;
  });
  const ok = told.every(({ state }) => state === "ok") && keys.every(({ proposal }) => proposal === null);
  return { servers: told, keys, ok };
}
