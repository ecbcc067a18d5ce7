import type { KeyholdClient } from "../client/api.ts";
import type { CeremonyInviteInfo } from "../client/ceremonyapi.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { asHashId, type CeremonyId } from "../ids.ts";
import { encodeInvite } from "../protocol/ceremony/invite.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { type ReservedFile, reserveNewFile } from "../ui/outfile.ts";
import { jsonText, type Result, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { CEREMONY_DATA, collectText, leftText, outputText } from "./ceremonyshown.ts";
import { demandWishable, WISH_ARGS, type Wish, wishOf } from "./ceremonywish.ts";

const INVITE_ARGS = {
  qr: { type: "boolean", description: "show each invite as a QR code, too" },
  invitesOut: { type: "string", hint: "FILE", description: "write the invites to a new file, 0600, instead: JSON" },
} as const;

const ARGS = { ...WISH_ARGS, ...INVITE_ARGS } as const;
type Given = Values<typeof ARGS>;

const NO_ROOM = "leave out --qr";

/** The code of an invite; where it does not fit, that it does not: the invite itself is shown all the same. */
async function codeLines(ctx: Context, invite: string): Promise<string> {
  const { qrLines } = await import("../ui/qrcode.ts");
  try {
    return await qrLines(invite, { width: ctx.out.width, invert: false, otherwise: NO_ROOM });
  } catch (error) {
    if (error instanceof Fault) return `  (no QR code: ${error.message})`;
    throw error;
  }
}

/** The invites for people: what to do with each. */
async function inviteLines(
  ctx: Context,
  invites: readonly CeremonyInviteInfo[],
  name: string,
  qr: boolean,
): Promise<string> {
  const lines: string[] = [];
  for (const { name: who, account, invite } of invites) {
    if (invite === null) {
      lines.push("", `For the account ${plain(account ?? who)}:`, `  keyhold ceremony join --ceremony ${plain(name)}`);
      continue;
    }
    lines.push("", `For ${plain(who)} alone:`, `  keyhold ceremony join ${invite}`);
    if (!qr) continue;
    lines.push(await codeLines(ctx, invite));
  }
  return lines.join("\n");
}

const TELL_WORDS = "Tell them the six words of the server's key by another way.";
const HAND_OUT = `Hand each line to its person alone: who has it takes that seat, once. They need no account.\n${TELL_WORDS}`;

/** Invites where they were asked to go: into a file, and then not into the data. */
async function handInvites(
  ctx: Context,
  args: Pick<Given, "qr" | "invitesOut">,
  file: ReservedFile | null,
  invites: readonly CeremonyInviteInfo[],
  name: string,
): Promise<{ readonly data: readonly CeremonyInviteInfo[]; readonly text: string }> {
  if (file === null) {
    const shown = ctx.flags.json ? "" : await inviteLines(ctx, invites, name, args.qr);
    const secret = invites.some(({ invite }) => invite !== null);
    return { data: invites, text: `${secret ? HAND_OUT : TELL_WORDS}\n${shown}` };
  }
  const bytes = new TextEncoder().encode(`${jsonText({ v: 1, invites })}\n`);
  try {
    file.write(bytes);
  } finally {
    wipe(bytes);
  }
  const text = `The invites are in ${plain(args.invitesOut ?? "")}. ${HAND_OUT}`;
  return { data: invites.map((one) => ({ ...one, invite: null })), text };
}

/** A file for what is made, which shows that it cannot be written before anything is made. */
async function withNewFile<T>(path: string | null, work: (file: ReservedFile | null) => Promise<T>): Promise<T> {
  const file = path === null ? null : reserveNewFile(path, 0);
  try {
    return await work(file);
  } finally {
    file?.end();
  }
}

/** Says before anything is opened that there is no room for the QR codes of its invites. @throws Fault bad_input */
async function demandRoomForCodes(ctx: Context, client: KeyholdClient, args: Given, { seats }: Wish): Promise<void> {
  const { width } = ctx.out;
  const shown = args.qr && args.invitesOut === null && !ctx.flags.json && seats.some(({ account }) => account === null);
  if (!shown || width === null) return;
  const { server } = await client.status();
  if (server === null) return;
  const { demandRoomForQr } = await import("../ui/qrcode.ts");
  const { url, pin } = server;
  const blank = new Uint8Array(32);
  // every invite of one server is as long as this one
  const invite = encodeInvite({ url, pin, ceremonyId: asHashId<CeremonyId>(blank.toHex()), index: 1, seed: blank });
  await demandRoomForQr(invite, width, NO_ROOM);
}

async function open(ctx: Context, client: KeyholdClient, args: Given, file: ReservedFile | null): Promise<Result> {
  const before = args.again === null ? null : await client.ceremony({ ceremony: args.again });
  const wish = await wishOf(ctx, args, before);
  await demandRoomForCodes(ctx, client, args, wish);
  const opening = client.ceremonyOpen(wish);
  const { info, invites } = await ctx.term.step("Opening", opening);
  const { data, text } = await handInvites(ctx, args, file, invites, info.name);
  const left = info.until === null ? "" : `, for ${leftText(Date.parse(info.until) - Date.now())}`;
  const lines = [
    `${plain(info.name)} is open${left}: ${outputText(info.output)}`,
    `  id       ${info.ceremonyId}`,
    `  words    ${info.words.join(" ")}   (of the server's key)`,
    `  leaves   ${collectText(info)}`,
    "",
    text,
    "",
    `To see who has come: keyhold ceremony status ${plain(info.name)} --watch`,
  ];
  return result({ info, invites: data }, () => lines.join("\n"));
}

export const ceremonyOpen = defineCommand({
  args: ARGS,
  data: `{info: ${CEREMONY_DATA}, invites:[{index, name, invite, account}]}`,
  details: `Prints an invite for each participant, which is the key to that seat. What stands in it is fixed by your signature: who
takes part, what becomes of the key, and who may ever take it out of the server's store. You take part yourself by an
invite of your own. What is missing is asked for at a terminal, and shown whole before it is opened.`,
  examples: [
    [
      'keyhold ceremony open backup-key --purpose "seal our backups" --output bytes --participant ann --participant ben',
      "32 bytes of two people",
    ],
    [
      "keyhold ceremony open door-code --purpose door --output totp --participants 5 --invites-out invites.json",
      "one-time passwords of five",
    ],
    [
      "keyhold ceremony open wallet --purpose treasury --output multisig --threshold 2 --account ann --account ben --account cleo",
      "a wallet of which any two spend",
    ],
    ["keyhold ceremony open backup-key --again backup-key", "once more, after it was aborted"],
  ],
  run: async (args, ctx) => {
    // what can be said without a password is said before one is asked for
    demandWishable(args);
    return withNewFile(args.invitesOut, (file) => withClient(ctx, (client) => open(ctx, client, args, file)));
  },
});

export const ceremonyInvites = defineCommand({
  args: {
    ceremony: {
      type: "positional",
      complete: "ceremony",
      description: "its name, its id, or the start of the id",
      ask: "Ceremony",
    },
    ...INVITE_ARGS,
  },
  data: "{invites:[{index, name, invite, account}]}",
  details: "Of a ceremony that this vault opened: those of the seats that nobody has taken yet.",
  examples: [["keyhold ceremony invites backup-key", "once more, for who lost the line"]],
  run: async (args, ctx) =>
    withNewFile(args.invitesOut, (file) =>
      withClient(ctx, async (client) => {
        const invites = await client.ceremonyInvites({ ceremony: args.ceremony });
        const { data, text } = await handInvites(ctx, args, file, invites, args.ceremony);
        return result({ invites: data }, () => (invites.length === 0 ? "every seat is taken" : text));
      }),
    ),
});
