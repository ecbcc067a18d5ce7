import type { FactorSource } from "../client/factorapi.ts";
import { wipe } from "../crypto/bytes.ts";
import type { Fault } from "../errors.ts";
import type { Context } from "./command.ts";
import { readGivenFd, readSecretFile } from "./password.ts";

type Sources = Pick<Context, "flags" | "term" | "stdin" | "out">;

/** Room for a recovery code with its hyphens, a line's end and what shows that it is too long. */
const READ_LIMIT = 64;
const FIX = "--factor-file FILE or --factor-fd N";

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder().decode(bytes).trim();
  } finally {
    wipe(bytes);
  }
}

/** A code in a file, readable by its owner only. @throws Fault not_found, denied, bad_input */
export function codeFile(path: string): string {
  return textOf(readSecretFile(path, READ_LIMIT, "refuse"));
}

/** The code that was given without a prompt: `--factor-fd` › `--factor-file`; null if none was. */
export function givenFactor({ flags, stdin }: Pick<Sources, "flags" | "stdin">): string | null {
  if (flags.factorFd !== null) {
    if (flags.factorFd === 0) stdin.claim("the code");
    return textOf(readGivenFd(flags.factorFd, "--factor-fd", READ_LIMIT));
  }
  return flags.factorFile === null ? null : codeFile(flags.factorFile);
}

/**
 * Asks for a code; a recovery code is not shown as it is typed.
 *
 * @param optional Says that an empty answer opens the vault alone.
 * @throws Fault factor_required, interrupted
 */
export async function askFactor({ term, out }: Sources, refused: Fault | null, optional = false): Promise<string> {
  if (refused !== null) out.warn(refused.message);
  const without = optional ? " (empty: this vault alone)" : "";
  return term.password(`Code of the second factor, or a recovery code${without}`, {
    code: "factor_required",
    needed: "a code of the second factor",
    fix: FIX,
  });
}

/** Flags whose code a login of this process has taken. */
const taken = new WeakSet<Sources["flags"]>();

/** True where a code was given that nothing has asked for yet: one that is given is always checked. */
export const hasUnaskedFactor = ({ flags }: Pick<Sources, "flags">): boolean =>
  (flags.factorFd !== null || flags.factorFile !== null) && !taken.has(flags);

/** What a login asks for beyond the password: given, and then once; else asked for. */
export function factorSource(sources: Sources): FactorSource {
  return {
    async code(refused) {
      const { flags, term } = sources;
      taken.add(flags);
      if (flags.factorFd !== null || flags.factorFile !== null) return refused === null ? givenFactor(sources) : null;
      return term.canPrompt ? askFactor(sources, refused) : null;
    },
  };
}
