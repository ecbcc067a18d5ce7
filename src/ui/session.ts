import { join } from "node:path";
import { agentClient, agentSocket, agentUsable } from "../client/agent.ts";
import type { KeyholdClient } from "../client/api.ts";
import type { Home, Kdf } from "../client/home.ts";
import type { Surroundings } from "../client/model.ts";
import { defaultProfile, type Profile, readProfile } from "../client/profile.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Context } from "./command.ts";
import { factorSource, hasUnaskedFactor } from "./factor.ts";
import { askPassword, givenPassword } from "./password.ts";
import { hideProcess } from "./process.ts";
import { plain } from "./text.ts";

/** What commands that work on a profile need of the context. */
export type SessionContext = Pick<Context, "out" | "term" | "flags" | "env" | "dirs" | "stdin" | "settings">;

/** Where this user's profiles and vaults lie. */
export function homeOf(ctx: Pick<Context, "dirs">): Home {
  return { profiles: join(ctx.dirs.config, "profiles"), vaults: join(ctx.dirs.data, "vaults") };
}

/** The profile's name that flag, environment or files ask for; null for the default one. */
export async function wantedProfile(ctx: SessionContext): Promise<string | null> {
  return (await ctx.settings()).get("profile", ctx.flags.profile);
}

/** The cost of key derivation that this command runs with; the cheap one says that it is insecure. */
export function kdfOf(ctx: SessionContext, profile: Profile | null): Kdf {
  const kdf = ctx.flags.kdf === "test" || profile?.kdf === "test" ? "test" : "default";
  if (kdf === "test") ctx.out.warn("insecure: --kdf test makes the password easy to guess");
  return kdf;
}

/** Clock, randomness and notices of this process. */
export function surroundings(ctx: SessionContext): Surroundings {
  return {
    now: Date.now,
    random: (length) => crypto.getRandomValues(new Uint8Array(length)),
    notice: (text) => ctx.out.notice(plain(text)),
    factor: factorSource(ctx),
  };
}

/** The profile to work on. @throws Fault not_logged_in when there is none */
export async function profileOf(ctx: SessionContext): Promise<Profile> {
  const home = homeOf(ctx);
  const wanted = await wantedProfile(ctx);
  const name = wanted ?? defaultProfile(home.profiles) ?? "default";
  const profile = readProfile(home.profiles, name);
  // a registration that was cut short left a profile without an account
  const unfinished = profile !== null && profile.server !== null && profile.userId === null;
  if (profile && !unfinished) return profile;
  throw new Fault(
    "not_logged_in",
    wanted === null ? "there is no account or vault here yet" : `there is no profile "${wanted}"`,
    {
      hint: "keyhold register --server URL --pin PIN --account NAME   (or: keyhold init --local)",
    },
  );
}

/** The profile to work on, where nobody has logged out of it. @throws Fault not_logged_in */
export async function activeProfile(ctx: SessionContext): Promise<Profile> {
  const profile = await profileOf(ctx);
  if (!profile.loggedOut) return profile;
  throw new Fault("not_logged_in", "you are logged out", { hint: "keyhold login" });
}

/**
 * A client by the given password, else the running agent, else a password asked for (docs/cli.md §2).
 *
 * @param read The given password, where the caller has read it already; wiped here.
 */
export async function openClient(ctx: SessionContext, read?: Uint8Array): Promise<KeyholdClient> {
  return (await opened(ctx, read, false)).client;
}

/** An open client; a copy of the password where the server withholds what its second factor guards. */
interface Opened {
  readonly client: KeyholdClient;
  readonly withheld: Uint8Array | null;
}

/** @param vaultAlone Does not ask for a code: see {@link withReader}. */
async function opened(ctx: SessionContext, read: Uint8Array | undefined, vaultAlone: boolean): Promise<Opened> {
  const profile = await profileOf(ctx);
  hideProcess();
  const given = read ?? (await givenPassword(ctx));
  if (profile.loggedOut) {
    wipe(given ?? undefined);
    throw new Fault("not_logged_in", "you are logged out", { hint: "keyhold login" });
  }
  const socket = agentSocket(ctx.dirs.runtime, profile.name);
  if (given === null && (await agentUsable(socket))) {
    return { client: agentClient(socket, (text) => ctx.out.notice(plain(text))), withheld: null };
  }
  const password = given ?? (await askPassword(ctx));
  try {
    const { openProfile } = await import("../client/home.ts");
    const around = surroundings(ctx);
    const quiet = vaultAlone && !hasUnaskedFactor(ctx) ? { ...around, factor: { code: async () => null } } : around;
    const options = { keep: false, vaultAlone: vaultAlone && !hasUnaskedFactor(ctx) };
    const opening = openProfile(homeOf(ctx), { ...profile, kdf: kdfOf(ctx, profile) }, password, quiet, options);
    const { client, withheld } = await ctx.term.step("Checking the password", opening);
    return { client, withheld: withheld && password.slice() };
  } finally {
    wipe(password);
  }
}

/** Runs work with a client and closes it. */
export async function withClient<T>(
  ctx: SessionContext,
  work: (client: KeyholdClient) => Promise<T>,
  read?: Uint8Array,
): Promise<T> {
  const client = await openClient(ctx, read);
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}

/** What may be on the server alone. */
const ELSEWHERE: ReadonlySet<string> = new Set(["factor_required", "unreachable", "not_found"]);

/**
 * Runs work that only reads. Where the server asks for a second factor and nobody gave a code, the vault answers, which
 * the password opens (docs/protocol.md §10.9); what it does not have is read once more after a code was asked for.
 *
 * @param work May be run twice; learns whether the server was left out.
 * @throws Fault factor_required where a code is needed and nobody can be asked
 */
export async function withReader<T>(
  ctx: SessionContext,
  work: (client: KeyholdClient, withheld: boolean) => Promise<T>,
  read?: Uint8Array,
): Promise<T> {
  const { client, withheld } = await opened(ctx, read, true);
  try {
    try {
      return await work(client, withheld !== null);
    } finally {
      await client.close();
    }
  } catch (error) {
    if (withheld === null || !(error instanceof Fault) || !ELSEWHERE.has(error.code)) throw error;
    if (ctx.term.canPrompt) return await withClient(ctx, (whole) => work(whole, false), withheld);
    if (error.code === "not_found") throw error;
    throw new Fault("factor_required", "the vault does not have this, and its server asks for a code");
  } finally {
    wipe(withheld ?? undefined);
  }
}
