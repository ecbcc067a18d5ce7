import type { KeyholdClient } from "../client/api.ts";
import type { CeremonyInfo } from "../client/ceremonyapi.ts";
import { initLocal } from "../client/enrol.ts";
import { homeState } from "../client/unfinished.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { decodeInvite } from "../protocol/ceremony/invite.ts";
import { CEREMONY_FUNCTIONS } from "../protocol/ceremony/model.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { type Result, result } from "../ui/output.ts";
import { choosePassword, readSecretFile, readStandardInput, stdinHasInput } from "../ui/password.ts";
import { homeOf, kdfOf, profileOf, surroundings, wantedProfile, withClient } from "../ui/session.ts";
import { decodeText, plain } from "../ui/text.ts";
import type { JoinAnswers } from "../ui/wizard/joining.ts";
import { MIX_KINDS, type MixKind, mixedFile } from "../ui/wizard/mixing.ts";
import { textWidth, wrapped } from "../ui/wrap.ts";
import { introduction } from "./ceremonyintroduction.ts";
import {
  abortFault,
  beliefs,
  CEREMONY_DATA,
  ceremonyLines,
  FUNCTION_TEXTS,
  isOver,
  stageText,
} from "./ceremonyshown.ts";
import { advancing, goingOn, waitForEnd } from "./ceremonywait.ts";

const ARGS = {
  invite: { type: "positional", required: false, description: "the line that the organiser gave you; works once" },
  inviteFile: { type: "string", hint: "FILE", description: "read the invite from FILE (- is stdin)" },
  ceremony: {
    type: "string",
    hint: "NAME",
    complete: "ceremony",
    description: "go on with it, or take your account's seat: name or id",
  },
  function: {
    type: "enum",
    options: CEREMONY_FUNCTIONS,
    description: "by which your part goes into the key (default hkdf-sha256)",
  },
  mix: {
    type: "list",
    hint: "typed|dice|file|none",
    description: "what is added to the system's 32 bytes: asked for (repeat)",
  },
  mixFile: { type: "list", hint: "FILE", description: "add a file to the system's 32 bytes (repeat)" },
  rsa: { type: "boolean", description: "seal to the server's RSA key instead of X25519" },
  noWait: { type: "boolean", description: "commit and end with exit 9; the same command later goes on" },
  timeout: { type: "duration", description: "wait at most so long, then exit 11; it goes on later" },
} as const;
type Given = Values<typeof ARGS>;

/** An invite fits into this with a whole command around it. */
const INVITE_MAX = 4_096;

/** Pieces that an invite is in at most, where a mail program broke or quoted it. */
const PIECES_MAX = 64;

/** The invite in what was pasted: the whole command, or a mail that wraps or quotes it. @throws Fault bad_input */
export function inviteIn(text: string): string {
  const at = text.indexOf("keyhold-ceremony:");
  const found = at === -1 ? text : text.slice(at);
  let line = "";
  for (const piece of found.split(/[^\w:-]+/, PIECES_MAX)) {
    line += piece;
    if (isInvite(line)) return line;
  }
  // says what is wrong with it; a damaged one shows before a vault is made for it
  wipe(decodeInvite(found).seed);
  return found;
}

/** An invite on the command line, where a shell ends it at the first line break. @throws Fault bad_input */
function wholeLine(text: string): string {
  try {
    return inviteIn(text);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault(error.code, error.message, {
      hint: "keyhold ceremony join asks for it: paste the whole of it there, however a mail broke it; or ask the organiser again",
    });
  }
}

function isInvite(line: string): boolean {
  try {
    wipe(decodeInvite(line).seed);
    return true;
  } catch {
    return false;
  }
}

/** The invite that was given in whatever way; null where `--ceremony` names what to go on with. */
async function readInvite(ctx: Context, args: Given): Promise<string | null> {
  const ways = [args.invite, args.inviteFile, args.ceremony].filter((way) => way !== null);
  if (ways.length > 1) {
    const [one, other] = [
      args.invite === null ? "--invite-file" : "an invite",
      args.ceremony === null ? "--invite-file" : "--ceremony",
    ];
    throw new Fault("usage", `${one} and ${other} exclude each other: give one of them`);
  }
  if (args.ceremony !== null) return null;
  if (args.invite !== null) return wholeLine(args.invite);
  if (args.inviteFile !== null && args.inviteFile !== "-") {
    return inviteIn(decodeText(readSecretFile(args.inviteFile, INVITE_MAX, "accept")));
  }
  if (args.inviteFile === "-" || (stdinHasInput() && !ctx.flags.passwordStdin)) {
    const text = decodeText(readStandardInput(ctx, "the invite", INVITE_MAX));
    if (text.trim() !== "" || args.inviteFile === "-") return inviteIn(text);
  }
  const check = (text: string) => {
    try {
      inviteIn(text);
      return null;
    } catch (error) {
      return error instanceof Fault ? error.message : "that cannot be read";
    }
  };
  const needed = "an invite";
  const fix = "keyhold ceremony join INVITE; or --ceremony NAME goes on with one";
  return inviteIn(await ctx.term.text("Paste the invite that the organiser gave you", { needed, fix }, check));
}

/** What is mixed in, by kind. @throws Fault usage */
function mixKinds(args: Given): readonly MixKind[] | null {
  const kinds = args.mix.map((text) => {
    const kind = [...MIX_KINDS, "none" as const].find((one) => one === text);
    if (kind === undefined) throw new Fault("usage", `--mix takes typed, dice, file or none, not "${text}"`);
    return kind;
  });
  if (kinds.includes("none") && (kinds.length > 1 || args.mixFile.length > 0)) {
    throw new Fault("usage", "--mix none goes with no other addition");
  }
  const asked = kinds.filter((kind) => kind !== "none").filter((kind) => kind !== "file" || args.mixFile.length === 0);
  return kinds.length === 0 && args.mixFile.length === 0 ? null : asked;
}

/**
 * A vault for what is drawn, where this home has none: its password, the caller's to wipe; else null. None is made for
 * an invite that leads nowhere.
 *
 * @throws Fault of the server's answer
 */
async function readyVault(ctx: Context, invite: string | null): Promise<Uint8Array | null> {
  const home = homeOf(ctx);
  const name = (await wantedProfile(ctx)) ?? null;
  const profile = await profileOf(ctx).catch((error: unknown) => {
    if (error instanceof Fault && error.code === "not_logged_in") return null;
    throw error;
  });
  if (profile !== null) return null;
  const wanted = name ?? "default";
  if (homeState(home, wanted).at !== "nothing") {
    throw new Fault("conflict", "a first run of keyhold was cut short here", { hint: "keyhold init goes on with it" });
  }
  if (invite === null) {
    throw new Fault("not_logged_in", "there is no vault here that could take part", {
      hint: "with an invite: keyhold ceremony join INVITE; for an account's seat: keyhold login --server URL --pin PIN --account NAME",
    });
  }
  const { lookWithoutVault } = await import("../client/ceremony/joining.ts");
  demandFree(await ctx.term.step("Asking the server", lookWithoutVault(surroundings(ctx), invite)));
  if (ctx.term.canPrompt && !ctx.flags.json) {
    await ctx.term.steps.say(
      "This computer has no keyhold vault yet. A vault is an encrypted file of yours: it keeps what is drawn for you " +
        "until the end, so that you can switch off and come back. It needs a password, which nobody else learns.",
    );
  }
  const password = await choosePassword(ctx, "Password of the new vault");
  try {
    const making = initLocal(home, { profile: wanted, password, kdf: kdfOf(ctx, null) }, surroundings(ctx));
    await ctx.term.step("Making the vault", making);
    return password;
  } catch (error) {
    wipe(password);
    throw error;
  }
}

type Client = Pick<KeyholdClient, "ceremony" | "ceremonyLook" | "ceremonyJoin" | "ceremonyAdvance">;

/** Where the command stands, so that whoever interrupts it learns how to go on. */
interface Progress {
  committed: CeremonyInfo | null;
}

/** The seat to take, or that was taken by this vault already. @throws Fault not_found, conflict */
async function seatOf(ctx: Context, client: Client, invite: string | null, ceremony: string) {
  if (invite !== null) {
    const { info, index } = await ctx.term.step("Asking the server", client.ceremonyLook({ invite }));
    return { info, index };
  }
  const info = await ctx.term.step("Asking the server", client.ceremony({ ceremony }));
  const own = info.seats.find((seat) => seat.own);
  const { account } = await profileOf(ctx);
  const seat = own ?? info.seats.find((one) => one.account !== null && one.account === account);
  if (seat) return { info, index: seat.index };
  throw new Fault("not_found", `there is no seat for you at ${plain(info.name)}`, {
    hint: "its organiser gives you an invite: keyhold ceremony join INVITE",
  });
}

/** Commits, after the questions where somebody can be asked. */
async function commit(
  ctx: Context,
  client: Client,
  args: Given,
  invite: string | null,
  seat: { readonly info: CeremonyInfo; readonly index: number },
  progress: Progress,
): Promise<CeremonyInfo> {
  const { info, index } = seat;
  const kinds = mixKinds(args);
  const answers: JoinAnswers = { function: args.function ?? "hkdf-sha256", mixed: args.mixFile.map(mixedFile) };
  try {
    const said = introduction(info, index, Date.now());
    if (ctx.term.canPrompt && !ctx.flags.json && !ctx.flags.yes) {
      const { askJoining } = await import("../ui/wizard/joining.ts");
      const given = { function: args.function, mix: kinds };
      await askJoining(ctx.term.steps, info, { introduction: said, functions: FUNCTION_TEXTS, given }, answers);
    } else {
      if (kinds !== null && kinds.length > 0) {
        throw new Fault("input_needed", `what --mix ${kinds[0]} asks for is needed`, { hint: "--mix-file FILE" });
      }
      if (!ctx.flags.json) ctx.out.notice(`words of the server's key: ${info.words.join(" ")}   (compare them)`);
    }
    // from here on something may have been sent: what was drawn is in the vault before
    progress.committed = info;
    const joining = client.ceremonyJoin({
      invite,
      ceremony: invite === null ? info.ceremonyId : null,
      function: answers.function,
      mixed: answers.mixed,
      suite: args.rsa ? "rsa-oaep" : "hpke",
    });
    return await ctx.term.step("Committing", joining);
  } finally {
    for (const { bytes } of answers.mixed) wipe(bytes);
  }
}

/** Refuses a seat that cannot be taken. @throws Fault conflict, aborted ones as such */
function demandFree({ info, index }: { readonly info: CeremonyInfo; readonly index: number }): void {
  if (info.status === "aborted") throw abortFault(info);
  const seat = info.seats.find((one) => one.index === index);
  if (seat?.state === "waiting" && (info.status === "open" || info.status === "commit")) return;
  const taken = seat !== undefined && seat.state !== "waiting" && seat.state !== "absent";
  throw new Fault("conflict", taken ? "this invite was used already" : "it is too late to join", {
    why: taken ? "from another vault: an invite works once" : stageText(info, Date.now()),
    hint: taken ? "if it was not you, tell the organiser at once" : "ask the organiser for a new ceremony",
  });
}

/** Command that goes on: with the id, where that was given since a name means several. */
const goOnWith = ({ name }: CeremonyInfo, given: string | null): string =>
  `keyhold ceremony join --ceremony ${plain(given ?? name)}`;

/** Running text is broken to the terminal's width; commands, which are indented, stay whole to be copied. */
const beliefLines = (info: CeremonyInfo, width: number | null): readonly string[] =>
  beliefs(info)
    .join("\n")
    .split("\n")
    .flatMap((line) => (line.startsWith("  ") ? [line] : wrapped(line, textWidth(width))));

async function joined(
  ctx: Context,
  client: Client,
  args: Given,
  invite: string | null,
  progress: Progress,
  signal: AbortSignal,
): Promise<Result> {
  const seat = await seatOf(ctx, client, invite, args.ceremony ?? "");
  const again = seat.info.seats.some(({ own, index }) => own && index === seat.index);
  if (!again) demandFree(seat);
  let info = again ? seat.info : await commit(ctx, client, args, invite, seat, progress);
  progress.committed = info;
  const goOn = goOnWith(info, args.ceremony);
  if (!ctx.flags.json) {
    const text = again
      ? "You have committed before: going on."
      : "You have committed. What was drawn for you lies in this vault, and nowhere else.";
    ctx.out.notice(args.noWait || isOver(info) ? text : `${text}\nLeave this running. After an interruption: ${goOn}`);
  }
  const ceremony = info.ceremonyId;
  if (!args.noWait) {
    info = await waitForEnd(ctx, info, { timeoutMs: args.timeout, goOn, look: advancing(client, ceremony), signal });
  } else if (again && !isOver(info)) info = await client.ceremonyAdvance({ ceremony });
  if (info.status === "aborted") throw abortFault(info);
  if (info.status === "stored") return result(info, (width) => beliefLines(info, width).join("\n"));
  return result(info, () => `${ceremonyLines(info, Date.now())}\nTo go on: ${goOn}`, { exit: 9 });
}

export const ceremonyJoin = defineCommand({
  args: ARGS,
  data: CEREMONY_DATA,
  details: `Leads through all of it at a terminal: what happens, whom to trust for what, which words to compare, whether to add words
or dice of your own. It makes a vault where this home has none. Then it commits, waits for the others, reveals by itself
what was committed, checks the whole transcript, and says what came of it. Ctrl-C is safe at any time: the command with
--ceremony NAME goes on. A server that is away is waited for until the stage is over, and at a terminal an agent that has
locked, too: looking leaves its idle time as it is. With --yes or --json nothing is asked.`,
  examples: [
    ["keyhold ceremony join keyhold-ceremony:…", "with the line that the organiser gave you"],
    ["keyhold ceremony join --ceremony vault-key", "go on after an interruption; or with the seat of your account"],
    ["keyhold ceremony join --invite-file invite --mix-file noise --no-wait --json", "for scripts: again until exit 0"],
  ],
  run: async (args, ctx) => {
    mixKinds(args);
    const progress: Progress = { committed: null };
    const goOn = () => (progress.committed === null ? null : goOnWith(progress.committed, args.ceremony));
    return goingOn(ctx, goOn, async (signal) => {
      const invite = await readInvite(ctx, args);
      const password = await readyVault(ctx, invite);
      return withClient(ctx, (client) => joined(ctx, client, args, invite, progress, signal), password ?? undefined);
    });
  },
});
