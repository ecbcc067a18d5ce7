import { resolve } from "node:path";
import { initLocal, loginNewDevice, refuseExisting, registerAccount } from "../../client/enrol.ts";
import { type Profile, readProfile } from "../../client/profile.ts";
import { dropUnfinished, homeState } from "../../client/unfinished.ts";
import { Fault } from "../../errors.ts";
import { callControl } from "../../wire/control.ts";
import type { Context } from "../command.ts";
import { homeOf, kdfOf, surroundings } from "../session.ts";
import type { Draft } from "./draft.ts";
import { type LocalServer, localServer } from "./localserver.ts";

/** A home that was made. */
export interface MadeHome {
  readonly profile: Profile;
  /** The server of this machine that it uses, if it was started or found for it. */
  readonly here: LocalServer | null;
  readonly requestId: string | null;
}

/**
 * Makes the home that a complete draft describes.
 *
 * @param further Logs in to an account that exists, as a further device, instead of registering it.
 * @throws Fault exists, denied, login_failed, unreachable and others of the registration; of the server that is started
 */
export async function makeHome(
  ctx: Context,
  name: string,
  draft: Draft,
  password: Uint8Array,
  further = false,
): Promise<MadeHome> {
  const home = homeOf(ctx);
  const kdf = kdfOf(ctx, null);
  const around = surroundings(ctx);
  if (draft.kind === "local") {
    // begun with a server, and decided otherwise
    if (homeState(home, name).at === "registering") await dropUnfinished(home, name);
    await ctx.term.step("Making the vault", initLocal(home, { profile: name, password, kdf }, around));
    return { profile: written(ctx, name), here: null, requestId: null };
  }
  // before a server is started for nothing
  if (draft.kind === "here") refuseExisting(home, name);
  const here = draft.kind === "here" ? await hostServer(ctx, draft) : null;
  const { server: url, pin, tlsCaPem, account } = draft;
  if (url === null || pin === null || account === null) throw new Fault("internal", "the answers are not complete");
  const input = { profile: name, server: { url, pin, tlsCaPem }, account, password, kdf };
  if (further) {
    const login = await ctx.term.step("Logging in", loginNewDevice(home, input, around));
    await login.client.closeSession({ sessionId: null, all: false });
    await login.client.close();
    return { profile: written(ctx, name), here, requestId: login.requestId };
  }
  const invite = draft.invite === null ? null : draft.invite.toUpperCase();
  const { requestId } = await ctx.term.step("Registering", registerAccount(home, { ...input, invite }, around));
  return { profile: written(ctx, name), here, requestId };
}

async function hostServer(ctx: Context, draft: Draft): Promise<LocalServer> {
  const settings = await ctx.settings();
  const dirs = { ...ctx.dirs, server: resolve(settings.get("dir", null) ?? ctx.dirs.server) };
  const here = await ctx.term.step("Starting the server", localServer(dirs, settings.get("listen", null)));
  if (here.log !== null) ctx.out.notice(`a server was started: process ${here.pid}, ${here.url}`);
  Object.assign(draft, { server: here.url, pin: here.pin });
  // its administrator is who asks
  if (here.registration === "invite" && draft.invite === null) {
    draft.invite = (await callControl(dirs.server, "invite.create", { expiresMs: null })).code;
  }
  return here;
}

function written(ctx: Context, name: string): Profile {
  const profile = readProfile(homeOf(ctx).profiles, name);
  if (profile) return profile;
  throw new Fault("internal", "the profile was not written");
}
