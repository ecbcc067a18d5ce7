import type { KeyholdClient } from "../client/api.ts";
import { checkKeyName } from "../client/ceremony/wording.ts";
import type { CeremonyInfo, CeremonyInviteInfo } from "../client/ceremonyapi.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import {
  COLLECTORS,
  OUTPUT_KINDS,
  type OutputSpec,
  PARTICIPANTS,
  type StorePolicy,
} from "../protocol/ceremony/model.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { type ReservedFile, reserveNewFile } from "../ui/outfile.ts";
import { jsonText, type Result, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { OUTPUT_ARGS, outputOf, saysNothing } from "./ceremonyoutput.ts";
import { CEREMONY_DATA, collectText, leftText, outputText } from "./ceremonyshown.ts";

const HOUR_MS = 3_600_000;

const INVITE_ARGS = {
  qr: { type: "boolean", description: "show each invite as a QR code, too" },
  invitesOut: { type: "string", hint: "FILE", description: "write the invites to a new file, 0600, instead: JSON" },
} as const;

const ARGS = {
  name: {
    type: "positional",
    description: "what the key is called: lower-case letters, digits, . _ -",
    ask: "Name of the key",
  },
  purpose: { type: "string", hint: "TEXT", description: "what the key is for, as participants read it" },
  ...OUTPUT_ARGS,
  participants: { type: "integer", ...PARTICIPANTS, description: "how many take part, each by an invite" },
  participant: { type: "list", hint: "NAME", description: "somebody who takes part by an invite (repeat)" },
  account: { type: "list", hint: "NAME", description: "an account of the server that takes part (repeat)" },
  minimum: { type: "integer", ...PARTICIPANTS, description: "fewer than these make no key (default: all)" },
  collect: {
    type: "enum",
    options: COLLECTORS,
    description: "who may take the value out of the store (default: nobody of one-time passwords, else organiser)",
  },
  quorum: {
    type: "integer",
    min: 0,
    max: PARTICIPANTS.max,
    description: "participants who must agree to that, one who takes it being counted (default 0)",
  },
  commitTime: { type: "duration", description: "how long participants may join (default 1h)" },
  revealTime: { type: "duration", description: "how long those who joined may reveal (default 1h)" },
  again: {
    type: "string",
    hint: "CEREMONY",
    complete: "ceremony",
    description: "repeat an aborted one: what is not said is as it was there",
  },
  replace: { type: "boolean", description: "make the next version of the key of this name" },
  ...INVITE_ARGS,
} as const;
type Given = Values<typeof ARGS>;

interface Seat {
  readonly name: string;
  readonly account: string | null;
}

function namedSeats(args: Given): readonly Seat[] {
  if (args.participants !== null && args.participant.length > 0) {
    throw new Fault("usage", "--participants and --participant exclude each other: count them, or name them");
  }
  const counted = Array.from({ length: args.participants ?? 0 }, (_, i) => `participant ${i + 1}`);
  return [
    ...[...counted, ...args.participant].map((name) => ({ name, account: null })),
    ...args.account.map((name) => ({ name, account: name })),
  ];
}

/** Who takes part, asked for where nobody said. @throws Fault usage, input_needed */
async function seatsOf(ctx: Context, args: Given, before: CeremonyInfo | null): Promise<readonly Seat[]> {
  let seats = namedSeats(args);
  if (seats.length === 0 && before !== null) seats = before.seats.map(({ name, account }) => ({ name, account }));
  if (seats.length === 0) {
    const split = (text: string) => text.split(",").flatMap((name) => (name.trim() === "" ? [] : [name.trim()]));
    const names = await ctx.term.text(
      "Who takes part, yourself included? Names, with commas between them",
      { needed: "--participant", fix: "--participant NAME for each, --participants N, or --account NAME" },
      (text) => (split(text).length < PARTICIPANTS.min ? "at least two take part" : null),
    );
    seats = split(names).map((name) => ({ name, account: null }));
  }
  if (seats.length < PARTICIPANTS.min || seats.length > PARTICIPANTS.max) {
    throw new Fault("usage", `${PARTICIPANTS.min} to ${PARTICIPANTS.max} take part, not ${seats.length}`);
  }
  const twice = seats.find(({ name }, i) => seats.findIndex((other) => other.name === name) !== i);
  if (twice)
    throw new Fault("usage", `two participants are called "${twice.name}"`, { hint: "give each a name of its own" });
  return seats;
}

async function purposeOf(ctx: Context, args: Given, before: CeremonyInfo | null): Promise<string> {
  const known = args.purpose ?? before?.purpose;
  if (known !== undefined) return known;
  const otherwise = { needed: "--purpose", fix: "--purpose TEXT" };
  return ctx.term.text("What is the key for? Participants read it before they commit", otherwise);
}

async function specOf(ctx: Context, args: Given, before: CeremonyInfo | null, seats: number): Promise<OutputSpec> {
  if (args.output === null && before !== null && saysNothing(args)) return before.output;
  const kind =
    args.output ??
    before?.output.kind ??
    (await ctx.term.select(
      "What shall become of the key?",
      OUTPUT_KINDS.map((value) => ({
        value,
        label: value,
        hint: outputText(outputOf(value, NOTHING, args.name, seats)),
      })),
      { needed: "--output", fix: `--output ${OUTPUT_KINDS.join("|")}` },
    ));
  return outputOf(kind, args, args.name, seats);
}

const NOTHING = {
  bytes: null,
  algorithm: null,
  digits: null,
  period: null,
  issuer: null,
  label: null,
  bits: null,
  words: null,
  threshold: null,
  network: null,
} as const;

function policyOf(args: Given, before: CeremonyInfo | null, { kind }: OutputSpec): StorePolicy {
  const stays = kind === "totp" || kind === "hotp" || kind === "multisig";
  const collect = args.collect ?? before?.policy.collect ?? (stays ? "nobody" : "organiser");
  const quorum = args.quorum ?? before?.policy.quorum ?? 0;
  if (collect === "nobody" && args.quorum !== null && args.quorum > 0) {
    throw new Fault("usage", "--quorum needs --collect organiser or --collect participants");
  }
  return { collect, quorum: collect === "nobody" ? 0 : quorum };
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
    const { qrLines } = await import("../ui/qrcode.ts");
    lines.push(await qrLines(invite, { width: ctx.out.width, invert: false }));
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

async function open(ctx: Context, client: KeyholdClient, args: Given, file: ReservedFile | null): Promise<Result> {
  const before = args.again === null ? null : await client.ceremony({ ceremony: args.again });
  const seats = await seatsOf(ctx, args, before);
  const purpose = await purposeOf(ctx, args, before);
  const output = await specOf(ctx, args, before, seats.length);
  const opening = client.ceremonyOpen({
    name: args.name,
    purpose,
    output,
    policy: policyOf(args, before, output),
    seats,
    minimum: args.minimum ?? (before?.seats.length === seats.length ? before.minimum : null),
    commitMs: args.commitTime ?? HOUR_MS,
    revealMs: args.revealTime ?? HOUR_MS,
    again: args.again,
    replace: args.replace,
  });
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
invite of your own. What is missing is asked for at a terminal.`,
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
    checkKeyName(args.name);
    if (args.again === null) {
      if (args.output !== null) outputOf(args.output, args, args.name, PARTICIPANTS.min);
      if (namedSeats(args).length > 0) await seatsOf(ctx, args, null);
    }
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
