import { defaultProfile, readProfile } from "../client/profile.ts";
import { homeState } from "../client/unfinished.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { COMPLETION_SHELLS, installFor } from "../ui/completionfiles.ts";
import { KIT_FILE_MAX, makeKit, noteConfirmed } from "../ui/kits.ts";
import { reserveNewFile } from "../ui/outfile.ts";
import type { Result } from "../ui/output.ts";
import { choosePassword, needPassword } from "../ui/password.ts";
import { homeOf, wantedProfile } from "../ui/session.ts";
import type { Draft } from "../ui/wizard/draft.ts";
import type { MadeHome } from "../ui/wizard/make.ts";
import { readAuthority, refused } from "./register.ts";

const ARGS = {
  local: { type: "boolean", description: "a vault on this device alone, without any server" },
  server: { type: "string", hint: "URL", description: "register on this server, with --pin and --account" },
  pin: { type: "string", hint: "PIN", description: "the server's pin, as `keyhold serve` prints it" },
  account: { type: "string", hint: "NAME", description: "name of the account" },
  invite: { type: "string", hint: "CODE", description: "one-time registration code, where the server asks for one" },
  tlsCa: { type: "string", hint: "FILE", description: "authority of the server's own TLS certificate, PEM" },
  startServer: { type: "boolean", description: "start a server on this machine, and register --account on it" },
  kitOut: { type: "string", hint: "FILE", description: "write a recovery kit to a new file, 0600; --yes: it is kept" },
  noKit: { type: "boolean", description: "do not ask about a recovery kit" },
  completion: { type: "enum", options: COMPLETION_SHELLS, description: "install the completion of this shell" },
} as const;
type Given = Values<typeof ARGS>;

/** What the flags answer. @throws Fault usage for flags that exclude each other */
function draftOf(given: Given): Draft {
  const kinds = [given.local && "local", given.server !== null && "join", given.startServer && "here"] as const;
  const named = kinds.filter((kind) => kind !== false);
  if (named.length > 1) throw new Fault("usage", "--local, --server and --start-server exclude each other");
  if (given.noKit && given.kitOut !== null) throw new Fault("usage", "--no-kit and --kit-out exclude each other");
  const { server, pin, account, invite } = given;
  return { kind: named[0] ?? null, server, pin, account, invite, tlsCaPem: readAuthority(given.tlsCa) };
}

function demandWhole({ kind, pin, account }: Draft): void {
  const fix = "--local; --server URL --pin PIN --account NAME; or --start-server --account NAME";
  if (kind === null) throw new Fault("input_needed", "the kind of home is needed", { hint: fix });
  const missing =
    kind === "join" && pin === null ? "--pin PIN" : kind !== "local" && account === null ? "--account NAME" : null;
  if (missing !== null) throw new Fault("input_needed", `${missing} is needed`, { hint: fix });
}

/** Without questions but that for the password: what the flags say and nothing else. */
async function plainly(ctx: Context, given: Given, draft: Draft, name: string): Promise<Result> {
  const home = homeOf(ctx);
  const state = homeState(home, name);
  const found = state.at === "ready" && draft.kind === null;
  if (!found) demandWhole(draft);
  // what hinders writing the kit shows before anything is made
  const file = given.kitOut === null ? null : reserveNewFile(given.kitOut, KIT_FILE_MAX);
  let password: Uint8Array | null = null;
  try {
    let made: MadeHome;
    if (found) made = { profile: state.profile, here: null, requestId: null };
    else {
      password = await choosePassword(ctx, "Password", draft.account === null ? [] : [draft.account]);
      const { makeHome } = await import("../ui/wizard/make.ts");
      made = await makeHome(ctx, name, draft, password).catch(refused);
    }
    if (file !== null) {
      password ??= await needPassword(ctx);
      const kit = await makeKit(ctx, made.profile, password);
      file.write(new TextEncoder().encode(kit.text));
      if (ctx.flags.yes) await noteConfirmed(ctx, made.profile, kit);
    }
    const completion =
      given.completion === null ? null : await installFor(ctx.env, given.completion, scriptOf(ctx), async () => false);
    const profile = readProfile(home.profiles, name) ?? made.profile;
    const { firstLogin } = await import("../ui/enrolfactor.ts");
    const asks = !found && profile.server !== null;
    const factor = asks && password !== null ? await firstLogin(ctx, profile, password, false) : null;
    const { report } = await import("../ui/wizard/report.ts");
    return report(ctx, { ...made, profile, kitOut: given.kitOut, completion, found, factor });
  } finally {
    file?.end();
    wipe(password ?? undefined);
  }
}

const scriptOf = (ctx: Context) => async (shell: (typeof COMPLETION_SHELLS)[number]) =>
  (await import("./completion.ts")).completionScript(ctx.root, shell);

export default defineCommand({
  args: ARGS,
  details:
    "At a terminal it asks for what the flags leave open: where the secrets live, the account, a master password (its " +
    "strength is shown; an empty answer suggests a passphrase), whether a recovery kit is kept, and completion. Run " +
    "again it says what there is, goes on where it was cut short, and offers what is missing. Without a terminal, or " +
    "with --json or --yes, it does what the flags say; a password that is given by a flag is taken as it is.",
  data: "{profile, vault, server?: {url, pin, pid?, dir?}, account?, userId?, kit: {out?, confirmed}, completion?, factor?}",
  examples: [
    ["keyhold init", "asks everything; the first minute with keyhold"],
    ["keyhold init --local --password-file pw --kit-out kit.txt --json", "for scripts: vault and recovery kit"],
    ["keyhold init --start-server --account ada", "a server on this machine, and an account on it"],
  ],
  run: async (args, ctx) => {
    const draft = draftOf(args);
    const usual = draft.kind === null ? defaultProfile(homeOf(ctx).profiles) : null;
    const name = (await wantedProfile(ctx)) ?? usual ?? "default";
    const { at } = homeState(homeOf(ctx), name);
    // what a flag asks to be made is refused where it is made already; a local one may go on
    const again = at === "ready" && draft.kind !== null && draft.kind !== "local";
    if (!ctx.term.canPrompt || ctx.flags.json || ctx.flags.yes || again) return plainly(ctx, args, draft, name);
    if (args.kitOut !== null || args.completion !== null) return plainly(ctx, args, draft, name);
    const { runWizard } = await import("../ui/wizard/wizard.ts");
    return runWizard(ctx, { name, draft, skipKit: args.noKit, scriptOf: scriptOf(ctx) });
  },
});
