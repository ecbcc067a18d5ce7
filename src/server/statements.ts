import { createHash } from "node:crypto";
import type { Store, Tx } from "../storage/store.ts";
import type { Statement } from "../wire/statement.ts";

/** What a statement says of the server; its number changes with it. */
export type StatementFacts = Pick<Statement, "opaqueKeys" | "logKey" | "nextIdentity" | "incarnation" | "registration">;

const SETTING = "statement";

function hashOf({ opaqueKeys, logKey, nextIdentity, incarnation, registration }: StatementFacts): string {
  const text = JSON.stringify([
    opaqueKeys.map((key) => key.toHex()),
    logKey.toHex(),
    nextIdentity?.toHex() ?? null,
    incarnation,
    registration,
  ]);
  return createHash("sha256").update(text).digest("hex");
}

/** The stored value: the number, and the hash of the facts that it stands for. */
function parse(value: string | undefined): { number: number; hash: string } {
  const [number = "0", hash = ""] = (value ?? "").split(" ");
  return { number: Number(number), hash };
}

/**
 * The number under which to sign these facts: one above the last when they changed, else the last one, so that several
 * processes of one server and a restarted one sign alike.
 */
export async function claimStatementNumber(store: Store, facts: StatementFacts): Promise<number> {
  const hash = hashOf(facts);
  return store.transaction(async (tx) => {
    const last = parse(await tx.setting(SETTING));
    if (last.number > 0 && last.hash === hash) return last.number;
    const number = last.number + 1;
    await tx.putSetting(SETTING, `${number} ${hash}`);
    return number;
  });
}

/** The newest number that any process of this server signs under. */
export async function statementNumber(store: Store): Promise<number> {
  return parse(await store.transaction((tx) => tx.setting(SETTING))).number;
}

/** After a restore: above every number that the server may have signed since the backup. */
export async function jumpStatementNumber(tx: Tx, nowMs: number): Promise<void> {
  const { number } = parse(await tx.setting(SETTING));
  await tx.putSetting(SETTING, `${Math.max(number, nowMs)} `);
}
