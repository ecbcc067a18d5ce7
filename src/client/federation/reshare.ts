import { Fault } from "../../errors.ts";
import type { Certificate, SignedCertificate } from "../../protocol/federation/certificate.ts";
import { erasureHolds } from "../../protocol/federation/erasure.ts";
import { memberOf } from "../../protocol/federation/manifest.ts";
import type { ReshareBody } from "../../protocol/federation/request.ts";
import type { Erasure, KeyView } from "../../wire/federation/operations.ts";
import type { FederatedResult } from "../federationapi.ts";
import { type Answer, askAll, complaints, everyone } from "./answers.ts";
import type { Contribute } from "./attempt.ts";
import { keepRequest, newRequest, settledElsewhere } from "./drive.ts";
import type { Ground } from "./ground.ts";
import type { HeldKey, HeldRequest } from "./held.ts";
import { renewKey, viewsOf } from "./keys.ts";
import { ceremonyPlan, make } from "./making.ts";
import { spreadPolicy } from "./policies.ts";
import { withAll } from "./standing.ts";

export interface ReshareInput {
  readonly mode: ReshareBody["mode"];
  /** Null: as it is. */
  readonly threshold: number | null;
  /** Null: of a repair the servers that can be reached, as many as t is more than half of; of a refresh the holders that can; of a reshare all servers. */
  readonly holders: readonly number[] | null;
}

/** Servers that say that they hold a live share of this generation. */
export function liveHolders(
  { generation, holders }: Certificate,
  views: readonly Answer<KeyView>[],
): readonly number[] {
  return views.flatMap(({ index, value }) => {
    const live = value?.held && value.certificate.certificate.generation === generation;
    return live && holders.includes(index) ? [index] : [];
  });
}

/** Who is to hold a share after a repair: the holders that can be reached, and of the others as many as t fits. */
function repaired({ threshold, holders }: Certificate, present: readonly number[]): readonly number[] {
  const others = present.filter((index) => !holders.includes(index));
  return [...holders.filter((index) => present.includes(index)), ...others].slice(0, 2 * threshold - 1);
}

/** The next holders, by what was asked for and who is there. @throws Fault bad_input, conflict, unavailable */
export function nextHolders(
  servers: readonly number[],
  certificate: Certificate,
  { mode, threshold, holders }: ReshareInput,
  live: readonly number[],
  present: readonly number[],
): readonly number[] {
  if (mode !== "reshare" && threshold !== null && threshold !== certificate.threshold) {
    throw new Fault("bad_input", "only a resharing changes the threshold", { hint: "keyhold key reshare" });
  }
  if (live.length < certificate.threshold) {
    throw new Fault("unavailable", "too few servers that hold a share of this key can be reached", {
      why: `${live.length} of ${certificate.threshold} that it takes`,
      hint: "keyhold federation check",
    });
  }
  const chosen = holders ?? (mode === "refresh" ? live : mode === "repair" ? repaired(certificate, present) : servers);
  if (holders === null && mode === "repair" && chosen.every((index) => live.includes(index))) {
    throw new Fault("conflict", "nothing is to be repaired: every server that can be reached holds a share", {
      hint: "keyhold federation check; a server that is away keeps its share, and has it once it is back",
    });
  }
  const next = [...new Set(chosen)].sort((a, b) => a - b);
  const least = threshold ?? certificate.threshold;
  if (least < 2 || least > next.length || least * 2 <= next.length) {
    throw new Fault("bad_input", `a threshold of ${least} does not fit ${next.length} holders`, {
      why: "it is more than half of them, at least 2, and at most all",
    });
  }
  return next;
}

/**
 * Shares a key anew: repair brings servers without a share in, refresh makes old shares worthless, reshare changes who
 * holds them. The key and its address stay.
 *
 * @throws Fault bad_input, conflict, denied, integrity, unavailable
 */
export async function reshareKey(ground: Ground, key: HeldKey, input: ReshareInput): Promise<FederatedResult> {
  const { manifest } = ground.fleet;
  const views = await viewsOf(ground, key);
  const current = await renewKey(ground, key, views);
  const { certificate } = current.certificate;
  for (const index of input.holders ?? []) memberOf(manifest, index);
  const present = views.flatMap(({ index, fault }) => (fault === null || fault.code === "not_found" ? [index] : []));
  const live = liveHolders(certificate, views);
  const holders = nextHolders(everyone(ground.fleet), certificate, input, live, present);
  const missing = holders.filter((index) => !present.includes(index));
  if (missing.length > 0) {
    throw new Fault("unavailable", `servers that are to hold a share cannot be reached: ${missing.join(", ")}`, {
      why: complaints(manifest, views),
      hint: "name the holders, and repair the key when the others are back",
    });
  }
  const body: ReshareBody = {
    kind: "reshare",
    keyId: current.keyId,
    generation: certificate.generation,
    mode: input.mode,
    threshold: input.threshold ?? certificate.threshold,
    holders,
  };
  if (certificate.policy !== null) await spreadPolicy(ground, certificate.policy);
  const fresh = newRequest(ground, body, { name: current.name });
  const label = ground.sealLabel(fresh.requestId, { name: current.name, nonce: current.nonce });
  return goOnResharing(ground, await keepRequest(ground, { ...fresh, label }));
}

/** Tells servers that lost the key, or missed a generation, what they need to take part; gives who holds a share. */
async function prepare(ground: Ground, key: HeldKey): Promise<readonly number[]> {
  const { certificate } = key;
  const { generation } = certificate.certificate;
  const views = await viewsOf(ground, key);
  const behind = views.flatMap(({ index, value, fault }) => {
    const older = value !== null && value.certificate.certificate.generation < generation;
    return older || fault?.code === "not_found" ? [index] : [];
  });
  await askAll(ground.fleet, behind, "federation.inform", () => ({ certificate, erasures: [] }));
  return liveHolders(certificate.certificate, views);
}

/** Goes on with a resharing. @throws Fault denied, integrity, unavailable, conflict */
export async function goOnResharing(ground: Ground, held: HeldRequest): Promise<FederatedResult> {
  const { body } = held.request.request;
  if (body.kind !== "reshare") throw new Fault("internal", "this request is no resharing");
  const key = ground.keeping.keys().find(({ keyId }) => keyId === body.keyId);
  if (!key) throw settledElsewhere(held.requestId);
  const before = key.certificate.certificate;
  if (held.decision === null && before.generation !== body.generation) {
    throw new Fault("stale", "the key was shared anew since this was asked for", {
      hint: "cancel the request",
      requestId: held.requestId,
    });
  }
  const live = held.decision === null ? await prepare(ground, key) : [];
  // only those who still have their share deal: the contribution says who they are
  const contribute: Contribute = (index) => (live.includes(index) ? ground.random(32) : null);
  const choose = withAll(body.holders, live, before.threshold);
  const made = await make(ground, held, ceremonyPlan(ground, choose, contribute, before), before);
  if (made.at === "waiting") return made.result;
  const left = before.generation === body.generation ? before : null;
  const refreshed = await spreadErasures(ground, { body }, left, made.signed);
  return refreshed || made.result.status !== "fulfilled" ? made.result : { ...made.result, status: "degraded" };
}

/** Who held shares of the generation that was left; null for another run's, whose vault has moved on. */
type Before = Pick<Certificate, "holders" | "threshold"> | null;

/** So many old holders must have erased their shares that the others cannot make the key: n − t + 1 (§8.9). */
export function erasuresNeeded(before: Before, { body }: Held, servers: readonly number[], now: Certificate): number {
  if (before !== null) return before.holders.length - before.threshold + 1;
  const threshold = body.mode === "reshare" ? 1 : now.threshold;
  return servers.length - threshold + 1;
}

interface Held {
  readonly body: ReshareBody;
}

/**
 * Gathers the old holders' signed word that their old shares are gone, and brings it to everyone.
 *
 * @returns true once so many have erased theirs that the rest cannot make the key.
 */
async function spreadErasures(ground: Ground, held: Held, before: Before, signed: SignedCertificate): Promise<boolean> {
  const { fleet } = ground;
  const { certificate } = signed;
  const { keyId, generation } = certificate;
  const views = await viewsOf(ground, { keyId });
  const erased = new Map<number, Erasure>();
  for (const one of views.flatMap(({ value }) => value?.erasures ?? [])) {
    const counts = one.keyId === keyId && one.generation >= generation - 1 && erasureHolds(fleet.manifest, one);
    if (counts && (before === null || before.holders.includes(one.index))) erased.set(one.index, one);
  }
  const erasures = [...erased.values()];
  await askAll(fleet, everyone(fleet), "federation.inform", () => ({ certificate: signed, erasures }));
  const enough = erasures.length >= erasuresNeeded(before, held, everyone(fleet), certificate);
  if (!enough) {
    ground.notice("not enough servers have confirmed yet that their old shares are gone: they still fit each other");
  }
  return enough;
}
