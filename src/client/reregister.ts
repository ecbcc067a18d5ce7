import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { wrapAccountKey } from "../protocol/account.ts";
import { commitSettings } from "./commit.ts";
import { acceptedCosts, finishOpaque, type LoggedIn, type Stretching } from "./login.ts";
import { boundOf, type Surroundings } from "./model.ts";
import { type OpaqueExchange, startOpaque } from "./opaque.ts";
import { type Open, online } from "./opened.ts";
import type { Profile } from "./profile.ts";
import type { Link, Session } from "./session.ts";
import { synchronise } from "./sync.ts";
import { withVault } from "./vaultbox.ts";

/** What a new password gives: the record that the server keeps, and the export key (64 bytes; the caller wipes it). */
export interface NewRecord {
  readonly record: Uint8Array;
  readonly exportKey: Uint8Array;
}

/** A session of this moment, with the way to its server. */
export interface FreshSession {
  readonly open: Open & { readonly session: Session };
  readonly link: Link;
}

/** Evaluates a new password with the server, in a fresh session. @throws Fault denied, rate_limited, integrity */
export async function registerPassword(
  profile: {
    readonly server: { readonly url: string } | null;
    readonly kdf: Stretching;
    readonly account: string | null;
  },
  { session, link }: { readonly session: Session; readonly link: Link },
  exchange: OpaqueExchange,
): Promise<NewRecord> {
  const { output } = await session.call("account.password.start", { request: exchange.request });
  const costs = acceptedCosts([output.ksf], profile.server?.url ?? "", profile.kdf);
  const made = await finishOpaque(exchange, profile.account ?? "", [output.response], costs);
  if (!made?.record) throw new Fault("internal", "the new password was refused locally");
  const { record, exportKey } = made;
  const [known] = link.opaqueKeys;
  if (known && equalBytes(known, made.serverKey)) return { record, exportKey };
  wipe(exportKey);
  throw new Fault("integrity", "the server registers with another OPAQUE key than its identity signed");
}

/** What keeps an account under the set-up before until the next login, and is no reason to refuse this one. */
const LATER: ReadonlySet<string> = new Set([
  ...["unreachable", "timed_out", "unavailable", "outcome_unknown", "storage", "internal"],
  // another process or device was faster, or somebody guesses just now
  ...["conflict", "stale", "rate_limited", "denied", "session_invalid"],
]);

/**
 * After a login under the server's OPAQUE set-up before the newest one: registers the same password under the newest
 * (docs/protocol.md §3.5). What comes in between leaves the account as it was, and the next login goes on.
 *
 * @throws Fault integrity
 */
export async function moveToNewestSetup(
  profile: Pick<Profile, "server" | "kdf" | "account">,
  fresh: FreshSession & { readonly done: Pick<LoggedIn, "setup"> },
  password: Uint8Array,
  around: Surroundings,
): Promise<void> {
  const { open, link, done } = fresh;
  // the statement that tells of the window may be younger than this contact
  if (done.setup === 0 || link.opaqueKeys.length < 2) return;
  const exchange = await startOpaque("register", password);
  try {
    await online(open, true, async (at) => {
      const { record, exportKey } = await registerPassword(profile, { session: open.session, link }, exchange);
      try {
        await withVault(open.box, around, async (held) => {
          const { model } = open.box;
          if (at?.moved()) await synchronise(model, open.session, around);
          await commitSettings(model, held, open.session, around, "account.reregister", (before, revision) => ({
            record,
            settings: {
              ...before,
              ...wrapAccountKey(exportKey, model.owner, revision, model.accountKey, around.random),
            },
          }));
          // the vault's password is the same
          const bound = boundOf(model);
          bound.keyedRevision = bound.settings.credentialRevision;
          await held.save();
        });
      } finally {
        wipe(exportKey);
      }
    });
    around.notice("the server renewed its login keys: this account uses the new ones now");
  } catch (error) {
    if (!(error instanceof Fault) || !LATER.has(error.code)) throw error;
  } finally {
    exchange.end();
  }
}
