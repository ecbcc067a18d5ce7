import { Fault } from "../errors.ts";
import type { Touched } from "./agentrow.ts";

/** What the owner is asked before the agent answers. */
export interface ConfirmQuestion {
  readonly method: string;
  /** Names of the secrets, as they are, not escaped; null: the account as a whole. */
  readonly names: readonly string[] | null;
  /** The process that asks, as it was when it connected. */
  readonly pid: number | null;
}

/** Puts a question to the owner. `signal` withdraws it. */
export type AskOwner = (question: ConfirmQuestion, signal: AbortSignal) => Promise<"yes" | "no" | "timed_out">;

/** Which secrets are asked about, and how. */
export interface ConfirmPolicy {
  /** Names, or beginnings of names that end in `*`; none: nothing is asked. */
  readonly patterns: readonly string[];
  /** null: nobody can be asked, so that what has to be confirmed is refused. */
  readonly ask: AskOwner | null;
}

/** Nothing is asked. */
export const NO_CONFIRM: ConfirmPolicy = { patterns: [], ask: null };

const PATTERNS_MAX = 64;
const PATTERN_BYTES = 1_024;

/**
 * The patterns that `always`, `never` or a list of patterns stands for.
 *
 * @throws Fault bad_input for a `*` elsewhere than at the end, and for `never` beside others
 */
export function confirmPatterns(given: readonly string[]): readonly string[] {
  const words = given.map((word) => word.normalize("NFC"));
  if (words.length === 1 && words[0] === "never") return [];
  if (words.includes("never")) throw new Fault("bad_input", 'confirm: "never" stands alone');
  for (const word of words) {
    if (word === "" || Buffer.byteLength(word) > PATTERN_BYTES || !word.isWellFormed()) {
      throw new Fault("bad_input", `confirm: a pattern has 1 to ${PATTERN_BYTES} bytes`);
    }
    if (word.slice(0, -1).includes("*")) {
      throw new Fault("bad_input", "confirm: in a pattern * stands at the end", { hint: "for example prod/*" });
    }
  }
  if (words.length > PATTERNS_MAX) throw new Fault("bad_input", `confirm: at most ${PATTERNS_MAX} patterns`);
  return words.includes("always") ? ["*"] : words;
}

/** True where a secret of this name is asked about. */
export function needsConfirm(patterns: readonly string[], name: string): boolean {
  return patterns.some((one) => (one.endsWith("*") ? name.startsWith(one.slice(0, -1)) : name === one));
}

/** Whether a reference can be a key id's beginning instead of a name. */
const ID_FORM = /^[0-9a-f]{4,32}$/i;
/** Questions that wait behind the one that is asked. */
const WAITING_MAX = 8;

/** Asks the owner, or refuses. */
export type Confirmer = (method: string, touched: Touched, pid: number | null, signal: AbortSignal) => Promise<void>;

/**
 * Lets through what needs no confirmation, and what the owner confirms: one question for all that a call touches, one
 * question at a time.
 *
 * @param known Names with their key ids, asked for only where a key id stands in place of a name.
 * @returns Rejects with Fault denied, timed_out, rate_limited (too many questions wait), locked (the agent ended).
 */
export function confirmer(
  { patterns, ask }: ConfirmPolicy,
  known: () => Promise<readonly { readonly name: string; readonly keyId: string }[]>,
): Confirmer {
  let tail: Promise<unknown> = Promise.resolve();
  let waiting = 0;

  /** The names that references stand for; one that nobody knows yet may become anything. */
  async function resolve(refs: readonly string[]): Promise<readonly string[]> {
    const names = refs.map((ref) => ref.normalize("NFC"));
    if (!names.some((name) => ID_FORM.test(name) && !needsConfirm(patterns, name))) {
      return names.filter((name) => needsConfirm(patterns, name));
    }
    const secrets = await known();
    const exact = new Set(secrets.map(({ name }) => name));
    return names.flatMap((name) => {
      if (!ID_FORM.test(name)) return needsConfirm(patterns, name) ? [name] : [];
      // a secret of that name may be gone by the time it is read: then the id counts
      const meant = secrets.filter(({ keyId }) => keyId.startsWith(name.toLowerCase())).map((one) => one.name);
      if (meant.length === 0 && !exact.has(name)) return [name];
      return [name, ...meant].filter((one) => needsConfirm(patterns, one));
    });
  }

  return async (method, touched, pid, signal) => {
    if (patterns.length === 0) return;
    const names = touched === "account" ? null : [...new Set(await resolve(touched))];
    if (names?.length === 0) return;
    if (ask === null) {
      throw new Fault("denied", "this has to be confirmed, and nobody can be asked", {
        hint: 'put "confirmCommand": "PROGRAM" into the file that keyhold config path names, then keyhold unlock',
      });
    }
    if (waiting >= WAITING_MAX) throw new Fault("rate_limited", "too many questions wait for the owner");
    waiting++;
    try {
      const asking = tail.then(() => (signal.aborted ? "no" : ask({ method, names, pid }, signal)));
      tail = asking.catch(() => undefined);
      const answer = await asking;
      if (signal.aborted)
        throw new Fault("locked", "the question was withdrawn", { why: "the agent or its caller ended" });
      if (answer === "timed_out") throw new Fault("timed_out", "the owner did not confirm in time");
      if (answer !== "yes") throw new Fault("denied", "the owner did not confirm this");
    } finally {
      waiting--;
    }
  };
}
