import type { ErrorCode } from "../../src/errors.ts";
import type { Middle } from "../support/harness.ts";
import type { Device, Stage } from "./stage.ts";

/** The lines of the catalogue, in words: what a server may try. */
export const LINES = [
  "swap two ciphertexts of a user",
  "swap ciphertexts of two users",
  "change type, version or id",
  "replay an old version",
  "hide a secret",
  "serve yesterday's account",
  "fork two devices",
  "lower the cost of key derivation",
  "swap public keys",
  "strip or reorder audit entries",
  "rewrite an audit entry and chain anew",
  "show different logs to two devices",
  "invent a mutating request",
  "replay, reorder, reflect or redirect a frame",
  "complete a login twice",
  "move a session to another account",
  "present another OPAQUE key or identity",
  "answer with a huge, deep or endless body",
  "withhold a receipt",
  "weaken or overwrite what is generated",
  "undo a rotation or a revocation",
  "say that the account was deleted",
  "claim a restore",
] as const;

/**
 * How the attacked command ends: a failure by exit code and error code, or as if nothing had happened; "either" where
 * that depends on what the device has seen, and only what it holds afterwards counts.
 */
export type End = "integrity" | "harmless" | "either" | { readonly exit: number; readonly codes: readonly ErrorCode[] };

/** One attack, mounted. */
export interface Attempt {
  /** What the server does while the command runs; null where its database was changed before. */
  readonly lie: Middle | null;
  /** Who is attacked; the desk unless said otherwise. A home that has no vault must have none after a failure. */
  readonly device?: Device;
  readonly command: readonly string[];
  /** The command is complete: no flags of the stage's way are added. */
  readonly whole?: true;
  readonly stdin?: string;
  readonly ends: End;
  /** Makes the server as it was, where `lie` alone does not end with the command. */
  readonly undo?: () => Promise<void>;
  /** What must hold once the same command was run again with the honest server. */
  readonly after?: () => Promise<void>;
  /** The command is not run again: it cannot be, or would be another one. */
  readonly once?: true;
  /** The device was shown what contradicts the honest server, and must keep on saying so; it is given up then. */
  readonly evidence?: true;
  /** What the device must hold in the end, where that is not what Ada's account does. */
  readonly holds?: ReadonlyMap<string, string | null>;
}

/** One way in which a server can lie, and what stands against it. */
export interface Attack {
  /** Unique, in words: what the server does. */
  readonly name: string;
  readonly line: (typeof LINES)[number];
  /** Where docs/protocol.md says what prevents it: numbers of sections. */
  readonly defence: readonly string[];
  /** Makes what the attack needs, honestly, and says what is to be run against what. */
  run(stage: Stage): Promise<Attempt>;
}

/** Attacks that share a line and a defence, by name. */
export function attacks(
  line: Attack["line"],
  defence: Attack["defence"],
  all: Readonly<Record<string, Attack["run"]>>,
): readonly Attack[] {
  return Object.entries(all).map(([name, run]) => ({ name, line, defence, run }));
}
