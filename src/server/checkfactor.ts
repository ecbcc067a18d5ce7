import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { FACTOR } from "../protocol/factor.ts";
import type { AccountRow, Tx } from "../storage/store.ts";
import { openRow } from "./accounts.ts";
import type { ServerContext } from "./context.ts";
import { eachStored, type Stored } from "./documents.ts";
import { type Factor, factorOf, SECOND_FACTOR } from "./factor.ts";

const KEY_BYTES = 20;
/** A clock that was put back by no more is no damage. */
const CLOCK_MS = 24 * 3_600_000;

/**
 * What is wrong with an account's second factor: its place, its key, and how far its codes are used up
 * (docs/protocol.md §10.9).
 *
 * @throws Fault corrupt for a row that cannot be read
 */
export async function checkFactor(ctx: ServerContext, tx: Tx, { userId }: AccountRow): Promise<string[]> {
  const own = await factorOf(tx, userId);
  const wrong = own ? checkRow(ctx, { userId }, own) : [];
  const listed = await eachStored(tx, SECOND_FACTOR, userId);
  if (listed.some(({ id }) => id !== userId)) wrong.push("a second factor of another account is listed with it");
  return wrong;
}

function checkRow(
  ctx: ServerContext,
  { userId }: Pick<AccountRow, "userId">,
  { owner, place, value }: Stored<Factor>,
): string[] {
  const wrong: string[] = [];
  const { sealed, steps, recovery, enabledAtMs } = value;
  const latest = ctx.now() + CLOCK_MS;
  const hashes = new Set(recovery.map((hash) => hash.toHex()));
  if (owner !== userId || place !== enabledAtMs) wrong.push("the second factor is not at its place");
  if (!keyOpens(ctx, { userId }, sealed)) wrong.push("the key of the second factor does not open");
  // one more than the newest step, and codes of the next step are taken
  if (steps > Math.floor(latest / (FACTOR.periodS * 1_000)) + FACTOR.skewSteps + 1 || enabledAtMs > latest)
    wrong.push("the second factor is of a time to come: its codes would not be taken");
  if (hashes.size < recovery.length) wrong.push("a recovery code of the second factor is there twice");
  return wrong;
}

function keyOpens(ctx: ServerContext, { userId }: Pick<AccountRow, "userId">, sealed: Uint8Array): boolean {
  try {
    const key = openRow(ctx, { kind: "second-factor", userId }, sealed);
    const whole = key.length === KEY_BYTES;
    wipe(key);
    return whole;
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}
