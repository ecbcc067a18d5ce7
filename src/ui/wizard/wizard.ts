import { type Profile, readProfile } from "../../client/profile.ts";
import { adoptVault, type HomeState, homeState } from "../../client/unfinished.ts";
import { wipe } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { Context } from "../command.ts";
import type { ScriptOf } from "../completionfiles.ts";
import { firstLogin } from "../enrolfactor.ts";
import { chooseAtTerminal } from "../newpassword.ts";
import type { Result } from "../output.ts";
import { givenNewPassword } from "../password.ts";
import { normalizePassword } from "../passwordtext.ts";
import { homeOf, kdfOf } from "../session.ts";
import { BACK, type Back } from "../terminal.ts";
import { plain } from "../text.ts";
import { type Draft, firstOpen, type Next, QUESTIONS } from "./draft.ts";
import { finish, type KnownPassword, lacksAnything, sayFault } from "./finish.ts";
import { type MadeHome, makeHome } from "./make.ts";
import { report } from "./report.ts";

/** What the command line said already. */
export interface Begun {
  readonly name: string;
  readonly draft: Draft;
  readonly skipKit: boolean;
  readonly scriptOf: ScriptOf;
}

/**
 * Leads a person through a first run, or through what a home still lacks; goes on where an earlier one was cut short.
 *
 * @throws Fault interrupted, when it is left; what was made by then stays, and the next run says so
 */
export async function runWizard(ctx: Context, begun: Begun): Promise<Result> {
  const password: KnownPassword = { bytes: await givenNewPassword(ctx) };
  try {
    const state = homeState(homeOf(ctx), begun.name);
    if (state.at === "ready" && !lacksAnything(ctx, state.profile, begun.skipKit)) {
      const nothing = { here: null, kitOut: null, completion: null, requestId: null, factor: null };
      return report(ctx, { profile: state.profile, ...nothing, found: true });
    }
    await ctx.term.steps.say("Esc goes one step back, Ctrl-C leaves; `keyhold init` goes on where you left.");
    const made = state.at === "ready" ? await greet(ctx, state.profile) : await settle(ctx, begun, state, password);
    const { bytes } = password;
    const asks = state.at !== "ready" && made.profile.server !== null && bytes !== null;
    const factor = asks ? await firstLogin(ctx, made.profile, bytes, true) : null;
    // a kit takes a login, too
    const skipKit = begun.skipKit || factor === "needed";
    const { kitOut, completion } = await finish(ctx, made.profile, password, begun.scriptOf, skipKit);
    // the kit was noted meanwhile
    const profile = readProfile(homeOf(ctx).profiles, begun.name) ?? made.profile;
    return report(ctx, { ...made, profile, kitOut, completion, found: state.at === "ready", factor });
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "interrupted") throw error;
    throw new Fault("interrupted", "cancelled", { hint: "keyhold init goes on where you left" });
  } finally {
    wipe(password.bytes ?? undefined);
  }
}

async function greet(ctx: Context, profile: Profile): Promise<MadeHome> {
  const where = profile.server
    ? `the account ${plain(profile.account ?? "")} on ${profile.server.url}`
    : "a vault on this device alone";
  await ctx.term.steps.say(`There is a home here already: ${where} (profile ${profile.name}).`, "good");
  if (profile.loggedOut) await ctx.term.steps.say("You are logged out of it: keyhold login", "warn");
  return { profile, here: null, requestId: null };
}

/** A question of the wizard, or what it does between two of them. */
type Step = Next | "resume" | "orphan" | "make" | "further";

async function settle(ctx: Context, begun: Begun, state: HomeState, password: KnownPassword): Promise<MadeHome> {
  const { steps } = ctx.term;
  const { draft, name } = begun;
  const given = password.bytes !== null;
  const passed: Step[] = [];
  let step: Step = state.at === "registering" ? "resume" : state.at === "orphan" ? "orphan" : firstOpen(draft);
  for (;;) {
    let next: Step | Back | MadeHome;
    if (step === "resume") next = await resume(ctx, draft, state);
    else if (step === "orphan") next = await adopt(ctx, name, state, password);
    else if (step === "password") next = given ? "make" : await askPassword(ctx, draft, password);
    else if (step === "make" || step === "further") next = await attempt(ctx, name, draft, password, step);
    else next = await QUESTIONS[step](steps, draft);
    if (typeof next === "object") return next;
    if (next === BACK) {
      const before = passed.pop();
      // Esc at the first question: there is nothing before it
      if (before === undefined) throw new Fault("interrupted", "cancelled");
      step = before;
      continue;
    }
    const asked = step !== "make" && step !== "further" && !(step === "password" && given);
    if (asked) passed.push(step);
    step = next;
  }
}

async function resume(ctx: Context, draft: Draft, state: HomeState): Promise<Step | Back> {
  if (state.at !== "registering") return firstOpen(draft);
  const { server, account } = state.profile;
  await ctx.term.steps.say(`A registration of ${plain(account ?? "")} on ${server?.url ?? ""} was begun here.`, "warn");
  const answer = await ctx.term.steps.select("Go on with it?", [
    { value: "on", label: "Yes: with the same password" },
    { value: "anew", label: "No, begin anew: what was begun is dropped" },
  ]);
  if (answer === BACK) return BACK;
  if (answer === "anew") return firstOpen(draft);
  const { url = null, pin = null, tlsCaPem = null } = server ?? {};
  Object.assign(draft, { kind: "join", server: url, pin, tlsCaPem, account });
  return "password";
}

async function adopt(
  ctx: Context,
  name: string,
  state: HomeState,
  password: KnownPassword,
): Promise<Back | Step | MadeHome> {
  const { steps } = ctx.term;
  if (state.at !== "orphan") return BACK;
  await steps.say(`A vault lies at ${plain(state.path)}, but no profile names it: a first run was cut short.`, "warn");
  for (;;) {
    const typed = password.bytes === null ? await steps.password("Its password, to go on with it") : null;
    if (typed === BACK) return BACK;
    try {
      if (typed !== null) password.bytes = normalizePassword(new TextEncoder().encode(typed));
      const adopting = adoptVault(homeOf(ctx), name, password.bytes ?? new Uint8Array(0), kdfOf(ctx, null));
      return { profile: await ctx.term.step("Opening it", adopting), here: null, requestId: null };
    } catch (error) {
      if (!(error instanceof Fault) || typed === null || error.code === "conflict") throw error;
      wipe(password.bytes ?? undefined);
      password.bytes = null;
      await sayFault(steps, error);
    }
  }
}

async function askPassword(ctx: Context, draft: Draft, password: KnownPassword): Promise<Step | Back> {
  const known = [draft.account ?? "", draft.server === null ? "" : new URL(draft.server).hostname];
  const chosen = await chooseAtTerminal(ctx.term, {
    message: "Master password",
    otherwise: { needed: "the password", fix: "--password-file FILE, --password-fd N or --password-stdin" },
    known,
  });
  if (chosen === BACK) return BACK;
  wipe(password.bytes ?? undefined);
  password.bytes = chosen;
  return "make";
}

/** Makes the home; what goes wrong is said, and leads to the question that may mend it. */
async function attempt(
  ctx: Context,
  name: string,
  draft: Draft,
  password: KnownPassword,
  how: "make" | "further",
): Promise<Step | Back | MadeHome> {
  const { steps } = ctx.term;
  if (password.bytes === null) return "password";
  try {
    return await makeHome(ctx, name, draft, password.bytes, how === "further");
  } catch (error) {
    if (!(error instanceof Fault) || error.code === "interrupted") throw error;
    await sayFault(steps, error);
    const taken = error.code === "exists" && draft.kind !== "local";
    const answer = await steps.select<Step | "leave">("What now?", [
      ...(taken
        ? [
            { value: "account" as const, label: "Choose another name" },
            { value: "further" as const, label: "The account is mine: make this machine a device of it" },
          ]
        : []),
      ...(error.code === "denied" ? [{ value: "invite" as const, label: "Enter an invite code" }] : []),
      { value: how, label: "Try again" },
      ...(how === "further" ? [{ value: "password" as const, label: "Another password" }] : []),
      { value: "where", label: "Change the answers" },
      { value: "leave", label: "Leave: keyhold init goes on from here" },
    ]);
    if (answer === "leave") throw error;
    return answer;
  }
}
