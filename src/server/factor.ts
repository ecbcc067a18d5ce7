import { open, seal } from "../crypto/aead.ts";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { RequestId, UserId } from "../ids.ts";
import { typedCode } from "../protocol/factor.ts";
import { factorStep, recoveryHash } from "../protocol/factorcode.ts";
import type { SessionFactor, SessionRow, Tx } from "../storage/store.ts";
import { bytes, id, list, type Of, struct, u53 } from "../wire/codec.ts";
import type { SessionOperation } from "../wire/operations.ts";
import { hash32 } from "../wire/records.ts";
import { openRow } from "./accounts.ts";
import type { ServerContext } from "./context.ts";
import { kindOf, putStored, readStored, type Stored } from "./documents.ts";
import { refusedBy, spend } from "./limits.ts";

/** An account's second factor as stored. */
const record = struct({
  /** The key of its codes, 20 bytes, under the server's sealing key. */
  sealed: bytes({ min: 41, max: 128 }),
  /** One more than the newest step that was accepted. */
  steps: u53,
  /** Hashes of the recovery codes that were not used. */
  recovery: list(hash32, { max: 16 }),
  enabledAtMs: u53,
  /** The request that set key or recovery codes last: repeated, it finds it done. */
  madeBy: id<RequestId>(),
});
export type Factor = Of<typeof record>;

/** By account id, and owned by the account: erased with it. */
export const SECOND_FACTOR = kindOf("secondFactor", record);

/** The second factor of an account. @throws Fault corrupt */
export function factorOf(tx: Tx, userId: UserId): Promise<Stored<Factor> | undefined> {
  return readStored(tx, SECOND_FACTOR, userId);
}

/** Writes it in place of the one that was read. @throws Fault conflict */
export async function putFactor(
  tx: Tx,
  userId: UserId,
  before: Pick<Stored<Factor>, "version"> | undefined,
  value: Factor,
): Promise<void> {
  const row = { id: userId, owner: userId, place: value.enabledAtMs, value };
  if (await putStored(tx, SECOND_FACTOR, row, before?.version ?? 0)) return;
  throw new Fault("conflict", "the second factor was changed at the same time");
}

/** Seals the key of an account's codes. */
export function sealFactorKey(ctx: ServerContext, userId: UserId, key: Uint8Array): Uint8Array {
  return seal(ctx.keys.sealing, { kind: "second-factor", userId }, key, ctx.random);
}

/** Seals an account's factor anew, if it is not under the sealing key of now. @throws Fault integrity, corrupt */
export async function renewFactor(ctx: ServerContext, tx: Tx, userId: UserId): Promise<boolean> {
  const found = await factorOf(tx, userId);
  if (!found) return false;
  const context = { kind: "second-factor", userId } as const;
  try {
    wipe(open(ctx.keys.sealing, context, found.value.sealed));
    return false;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
  }
  const key = openRow(ctx, context, found.value.sealed);
  await putFactor(tx, userId, found, { ...found.value, sealed: sealFactorKey(ctx, userId, key) });
  wipe(key);
  return true;
}

/** The one operation of a restricted session. */
const ONLY = {
  needed: "session.factor",
  device: "session.factor",
  enrol: "account.factor.enable",
} as const satisfies { readonly [S in SessionFactor]?: SessionOperation };

/** True for a session that waits for its second factor. */
export function isRestrictedSession(factor: SessionFactor): factor is keyof typeof ONLY {
  return Object.hasOwn(ONLY, factor);
}

/** Refuses everything in a restricted session but what makes it whole. @throws Fault factor_required */
export function demandFactor(factor: SessionFactor, name: SessionOperation): void {
  if (!isRestrictedSession(factor) || ONLY[factor] === name) return;
  if (factor !== "enrol") throw new Fault("factor_required", "this session waits for a code of the second factor");
  throw new Fault("factor_required", "this server asks every account for a second factor");
}

/** Where wrong codes are counted: sessions that showed a listed device apart from all others. */
const bucketOf = ({ factor, userId }: SessionRow): string => `factor${factor === "device" ? "-device" : ""}:${userId}`;

/** Where those of one session are counted. */
const triesOf = ({ sessionId }: SessionRow): string => `factor-session:${sessionId}`;

/** A code that does not fit: the session ends with the last one that it may bring. */
export async function refuseCode(
  ctx: ServerContext,
  tx: Tx,
  session: SessionRow,
  fault = new Fault("factor_failed", "the code is wrong, was used, or is not of this moment"),
): Promise<Fault> {
  const bucket = triesOf(session);
  const count = ((await tx.limit(bucket))?.count ?? 0) + 1;
  if (count < ctx.limits.factorTries) {
    await tx.putLimit({ bucket, count, blockedUntilMs: 0, updatedAtMs: ctx.now() });
    return fault;
  }
  await tx.dropLimit(bucket);
  await tx.closeSession(session.sessionId);
  return fault;
}

/**
 * Proves a code of an account's factor: what it used up is in the value that is given back, which the caller writes.
 *
 * @returns The refusal, counted: returned, so that the count stays.
 */
export async function proveFactor(
  ctx: ServerContext,
  tx: Tx,
  session: SessionRow,
  { value }: Stored<Factor>,
  text: string,
): Promise<Factor | Fault> {
  const { userId } = session;
  const bucket = bucketOf(session);
  const typed = typedCode(text);
  const blocked = await refusedBy(ctx, tx, bucket);
  let proven: Factor | undefined;
  if (typed?.kind === "recovery") {
    // 100 random bits need no waiting: nobody keeps the owner from using them
    const hash = recoveryHash(userId, typed.code);
    const left = value.recovery.filter((one) => !equalBytes(one, hash));
    if (left.length < value.recovery.length) proven = { ...value, recovery: left };
  } else if (blocked) return refuseCode(ctx, tx, session, blocked);
  else if (typed) {
    const key = openRow(ctx, { kind: "second-factor", userId }, value.sealed);
    const step = factorStep(key, typed.code, ctx.now(), value.steps - 1);
    wipe(key);
    if (step !== undefined) proven = { ...value, steps: step + 1 };
  }
  if (!proven) {
    if (!blocked) await spend(ctx, tx, bucket, ctx.limits.loginFreeFailures);
    return refuseCode(ctx, tx, session);
  }
  // others' guesses go on counting; whoever shows a listed device has none but the owner's
  if (session.factor === "device") await tx.dropLimit(bucket);
  await tx.dropLimit(triesOf(session));
  return proven;
}
