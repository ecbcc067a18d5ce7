import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { RequestId, UserId } from "../ids.ts";
import { KIT_BYTES, kitKeys, kitWords, wrapForKit } from "../protocol/kit.ts";
import { commitSettings } from "./commit.ts";
import { closeQuietly, type Home, logInFreshly } from "./home.ts";
import { boundOf, pinnedHash, type Surroundings, signersOf } from "./model.ts";
import { online } from "./opened.ts";
import type { Profile } from "./profile.ts";
import type { Anchor } from "./sync.ts";
import { withVault } from "./vaultbox.ts";

/** What a recovery kit says: enough to come back on a new machine (docs/protocol.md §5.8). */
export interface RecoveryKit {
  readonly server: string;
  readonly pin: string;
  readonly account: string;
  readonly userId: UserId;
  /** Position of the account when the kit was made. */
  readonly anchor: Anchor;
  readonly words: readonly string[];
}

/**
 * Makes a new recovery kit and signs its public halves into the account; the one before opens nothing any more.
 *
 * @throws Fault login_failed, rate_limited, unreachable
 */
export async function makeRecoveryKit(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  around: Surroundings,
): Promise<{ kit: RecoveryKit; replaced: boolean; requestId: RequestId }> {
  const { server, account } = profile;
  if (!server || !account) {
    throw new Fault("bad_input", "a recovery kit is for an account on a server", { hint: "keyhold vault backup" });
  }
  const { open, done } = await logInFreshly(home, profile, password, around);
  const entropy = around.random(KIT_BYTES);
  try {
    const kit = await kitKeys(entropy);
    const made = await online(open, true, () =>
      withVault(open.box, around, async (held) => {
        const { model } = open.box;
        const replaced = boundOf(model).settings.kit !== null;
        const { identity } = signersOf(model);
        const kitWrapped = await wrapForKit(kit, model.owner, identity.publicKey, model.accountKey, around.random);
        const requestId = await commitSettings(model, held, open.session, around, "account.kit", (before) => ({
          settings: { ...before, kit: kit.publicKeys, kitWrapped },
        }));
        const bound = boundOf(model);
        const anchor = { revision: bound.head.state.revision, stateHash: pinnedHash(bound) };
        const { url, pin } = server;
        const words = kitWords(entropy);
        return { kit: { server: url, pin, account, userId: model.owner, anchor, words }, replaced, requestId };
      }),
    );
    if (open.box.model.held.federationSecret !== null) {
      await (await import("./federation/parcel.ts")).keepParcelToo(open, open.session);
    }
    return made;
  } finally {
    wipe(entropy, done.exportKey);
    await closeQuietly(done);
  }
}

/** What the recovery kit of a vault without a server says (docs/vault-format.md §3). */
export interface VaultKit {
  readonly profile: string;
  /** Id of the vault, 32 hex digits. */
  readonly vaultId: string;
  readonly words: readonly string[];
}

const FIRST = "keyhold recovery kit";

/** A kit as text to print or to keep, which {@link readKit} reads. Holds the words: treat it as the account itself. */
export function kitText(kit: RecoveryKit, madeAtMs: number): string {
  return sheet(
    "Whoever has these words and the name of the account can take it over. Keep them off line.",
    [
      ["server", kit.server],
      ["pin", kit.pin],
      ["account", kit.account],
      ["account-id", kit.userId],
      ["head", `${kit.anchor.revision}:${kit.anchor.stateHash.toHex()}`],
      ["made", new Date(madeAtMs).toISOString()],
    ],
    kit.words,
    "On a new machine:  keyhold account recover --kit-file FILE",
  );
}

/** The same for the kit of a vault without a server. */
export function vaultKitText(kit: VaultKit, madeAtMs: number): string {
  return sheet(
    "Whoever has these words and the file of the vault can open it. Keep them off line.",
    [
      ["profile", kit.profile],
      ["vault-id", kit.vaultId],
      ["made", new Date(madeAtMs).toISOString()],
    ],
    kit.words,
    "When the password is lost:  keyhold vault recover --kit-file FILE",
  );
}

/** The words of a kit in numbered rows of `across` (default 4). */
export function wordRows(words: readonly string[], across = 4): readonly string[] {
  const cells = words.map((word, i) => `${String(i + 1).padStart(4)} ${word}`.padEnd(15));
  return Array.from({ length: Math.ceil(cells.length / across) }, (_, row) =>
    cells
      .slice(row * across, row * across + across)
      .join("")
      .trimEnd(),
  );
}

function sheet(
  warning: string,
  facts: readonly (readonly [name: string, value: string])[],
  words: readonly string[],
  use: string,
): string {
  const rows = facts.map(([name, value]) => `${name.padEnd(12)}${value}`);
  return [FIRST, "", warning, "", ...rows, "", "words", ...wordRows(words), "", use, ""].join("\n");
}

/** A kit's text taken apart: what stands in it. The words alone are a kit too. */
export interface ReadKit {
  readonly server: string | null;
  readonly pin: string | null;
  readonly account: string | null;
  readonly userId: UserId | null;
  readonly anchor: Anchor | null;
  /** Of the kit of a vault without a server. */
  readonly vaultId: string | null;
  /** The words as they were typed. */
  readonly words: string;
}

/** Reads what {@link kitText} wrote, or bare words. @throws Fault bad_input */
export function readKit(text: string): ReadKit {
  const lines = text.split(/\r?\n/);
  if (lines[0]?.trim() !== FIRST) {
    return { server: null, pin: null, account: null, userId: null, anchor: null, vaultId: null, words: text };
  }
  const field = (name: string): string | null => {
    const line = lines.find((one) => one.startsWith(`${name} `));
    return line === undefined ? null : line.slice(name.length).trim();
  };
  const start = lines.indexOf("words");
  const rest = lines.slice(start + 1);
  const end = rest.indexOf("");
  const words = (end < 0 ? rest : rest.slice(0, end)).join(" ");
  const head = field("head");
  return {
    server: field("server"),
    pin: field("pin"),
    account: field("account"),
    userId: field("account-id") as UserId | null,
    anchor: head === null ? null : parseAnchor(head),
    vaultId: field("vault-id"),
    words: start < 0 ? "" : words,
  };
}

/** Reads a position as a kit prints it: `REVISION:HASH`. @throws Fault bad_input */
export function parseAnchor(text: string): Anchor {
  const match = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text);
  if (!match?.[1] || !match[2]) throw new Fault("bad_input", "a head is written REVISION:HASH, as on the recovery kit");
  return { revision: Number(match[1]), stateHash: Uint8Array.fromHex(match[2]) };
}
