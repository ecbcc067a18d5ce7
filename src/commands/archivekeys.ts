import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Asks } from "../formats/foreign.ts";
import type { Values } from "../ui/args.ts";
import type { Context } from "../ui/command.ts";
import type { ARCHIVE_PASSWORD_ARGS } from "../ui/flags.ts";
import { archivePassword, readSecretFile } from "../ui/password.ts";

/** A file of keys, or of recipients, has a few lines each. */
const KEYS_BYTES = 65_536;

/** {@link Asks} that remember the password, so that it is asked for once; `end` wipes it. */
export interface ArchiveKeys extends Asks {
  end(): void;
}

/** Gives formats the password and the private keys that flags name, or that somebody at the terminal knows. */
export function archiveKeys(
  ctx: Context,
  args: Values<typeof ARCHIVE_PASSWORD_ARGS>,
  use: "new" | "known",
  identities: readonly string[],
): ArchiveKeys {
  let password: Promise<Uint8Array> | undefined;
  let held: Uint8Array | undefined;
  return {
    async password() {
      password ??= archivePassword(ctx, args, use);
      held = await password;
      return held.slice();
    },
    async identities() {
      if (identities.length > 0) return identities.map((path) => readSecretFile(path, KEYS_BYTES, "refuse"));
      throw new Fault("input_needed", "the private key of the archive is needed", {
        why: "the file is sealed to keys, not to a password",
        hint: "--identity FILE   (an age identity, or an Ed25519 or RSA key of ssh)",
      });
    },
    progress: () => undefined,
    end: () => wipe(held),
  };
}

/** The recipients that `--recipient` gives: each a key, or `@FILE` with one a line. @throws Fault bad_input */
export function recipientsOf(given: readonly string[]): readonly string[] {
  return given.flatMap((one) => {
    if (!one.startsWith("@")) return [one.trim()];
    const text = new TextDecoder().decode(readSecretFile(one.slice(1), KEYS_BYTES, "accept"));
    const lines = text.split(/\r?\n/).map((line) => line.trim());
    const keys = lines.filter((line) => line !== "" && !line.startsWith("#"));
    if (keys.length > 0) return keys;
    throw new Fault("bad_input", `there is no recipient in ${JSON.stringify(one.slice(1))}`);
  });
}
