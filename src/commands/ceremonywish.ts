import type { KeyholdClient } from "../client/api.ts";
import { checkKeyName, checkPurpose, checkSeatName } from "../client/ceremony/wording.ts";
import type { CeremonyInfo } from "../client/ceremonyapi.ts";
import { Fault } from "../errors.ts";
import {
  COLLECTORS,
  OUTPUT_KINDS,
  type OutputSpec,
  PARTICIPANTS,
  type StorePolicy,
} from "../protocol/ceremony/model.ts";
import type { Values } from "../ui/args.ts";
import type { Context } from "../ui/command.ts";
import { plain } from "../ui/text.ts";
import { NETWORKS, OUTPUT_ARGS, outputOf, saysNothing } from "./ceremonyoutput.ts";
import { collectText, leftText, outputText } from "./ceremonyshown.ts";
import { aligned } from "./keyringshown.ts";

const HOUR_MS = 3_600_000;

/** Why a check refuses something, for who is asked again; null where it does not. */
function refusalOf(check: () => void): string | null {
  try {
    check();
    return null;
  } catch (error) {
    if (error instanceof Fault) return error.why ?? error.message;
    throw error;
  }
}

/** Arguments that say what is to be made, and by whom. */
export const WISH_ARGS = {
  name: {
    type: "positional",
    description: "what the key is called: lower-case letters, digits, . _ -",
    ask: "Name of the key",
    check: (name: string) => refusalOf(() => checkKeyName(name)),
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
} as const;
type Given = Values<typeof WISH_ARGS>;

/** What the client is asked to open. */
export type Wish = Parameters<KeyholdClient["ceremonyOpen"]>[0];

type Seat = Wish["seats"][number];

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

/** Refuses a table at which nobody could sit. @throws Fault usage */
function demandSeats(seats: readonly Seat[]): void {
  if (seats.length < PARTICIPANTS.min || seats.length > PARTICIPANTS.max) {
    throw new Fault("usage", `${PARTICIPANTS.min} to ${PARTICIPANTS.max} take part, not ${seats.length}`);
  }
  const twice = seats.find(({ name }, i) => seats.findIndex((other) => other.name === name) !== i);
  if (twice)
    throw new Fault("usage", `two participants are called "${twice.name}"`, { hint: "give each a name of its own" });
}

/** Says without any password what of the flags cannot be. @throws Fault usage, bad_input */
export function demandWishable(args: Given): void {
  checkKeyName(args.name);
  if (args.again !== null) return;
  if (args.output !== null) outputOf(args.output, args, args.name, PARTICIPANTS.min);
  const seats = namedSeats(args);
  if (seats.length > 0) demandSeats(seats);
}

/** Who asks, and whether anything was asked so far. */
interface Asking {
  readonly ctx: Pick<Context, "term">;
  asked: boolean;
}

const namesIn = (text: string): readonly string[] =>
  text.split(",").flatMap((name) => (name.trim() === "" ? [] : [name.trim()]));

/** Why a list of names cannot sit at one table; null where they can. */
function wrongNames(text: string): string | null {
  const names = namesIn(text);
  if (names.length < PARTICIPANTS.min) return "at least two take part";
  if (names.length > PARTICIPANTS.max) return `at most ${PARTICIPANTS.max} take part`;
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) return `two are called ${twice}: give each a name of its own`;
  const wrong = names.flatMap((name) => refusalOf(() => checkSeatName(name)) ?? []);
  return wrong[0] === undefined ? null : `of each name: ${wrong[0]}`;
}

async function seatsOf(asking: Asking, args: Given, before: CeremonyInfo | null): Promise<readonly Seat[]> {
  const named = namedSeats(args);
  const seats =
    named.length === 0 && before !== null ? before.seats.map(({ name, account }) => ({ name, account })) : named;
  if (seats.length > 0) {
    demandSeats(seats);
    return seats;
  }
  asking.asked = true;
  const names = await asking.ctx.term.text(
    "Who takes part, yourself included? Names, with commas between them",
    { needed: "--participant", fix: "--participant NAME for each, --participants N, or --account NAME" },
    wrongNames,
  );
  return namesIn(names).map((name) => ({ name, account: null }));
}

async function purposeOf(asking: Asking, args: Given, before: CeremonyInfo | null): Promise<string> {
  const known = args.purpose ?? before?.purpose;
  if (known !== undefined) return known;
  asking.asked = true;
  return asking.ctx.term.text(
    "What is the key for? Participants read it before they commit",
    { needed: "--purpose", fix: "--purpose TEXT" },
    (text) => refusalOf(() => checkPurpose(text)),
  );
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

/** What a kind becomes where nothing more is said of it; of a wallet more is asked. */
const kindHint = (kind: OutputSpec["kind"], name: string): string =>
  kind === "multisig"
    ? "a Bitcoin wallet of one key a participant, of which some spend together"
    : outputText(outputOf(kind, NOTHING, name, PARTICIPANTS.min));

async function specOf(asking: Asking, args: Given, before: CeremonyInfo | null, seats: number): Promise<OutputSpec> {
  if (args.output === null && before !== null && saysNothing(args)) return before.output;
  const { term } = asking.ctx;
  let kind = args.output ?? before?.output.kind;
  if (kind === undefined) {
    asking.asked = true;
    kind = await term.select(
      "What shall become of the key?",
      OUTPUT_KINDS.map((value) => ({ value, label: value, hint: kindHint(value, args.name) })),
      { needed: "--output", fix: `--output ${OUTPUT_KINDS.join("|")}` },
    );
  }
  const wallet = kind === "multisig" && asking.asked ? await walletOf(asking, args, seats) : {};
  return outputOf(kind, { ...args, ...wallet }, args.name, seats);
}

/** Of a wallet how many spend, and where: what nobody can change afterwards is not left to a default unasked. */
async function walletOf({ ctx: { term } }: Asking, args: Given, seats: number): Promise<Partial<Given>> {
  const wrong = (text: string) => {
    const fits = /^[0-9]{1,2}$/.test(text) && Number(text) >= 1 && Number(text) <= seats;
    return fits ? null : `a number from 1 to ${seats}`;
  };
  const usual = Math.floor(seats / 2) + 1;
  const threshold =
    args.threshold ??
    Number(
      await term.text(
        `How many of the ${seats} must sign to spend? More than half is usual: ${usual}`,
        { needed: "--threshold", fix: "--threshold N" },
        wrong,
      ),
    );
  const network =
    args.network ??
    (await term.select(
      "Which network is the wallet for?",
      NETWORKS.map((value) => ({ value, label: value, ...(value === "mainnet" && { hint: "real coins" }) })),
      { needed: "--network", fix: `--network ${NETWORKS.join("|")}` },
    ));
  return { threshold, network };
}

function policyOf(args: Given, before: CeremonyInfo | null, { kind }: OutputSpec): StorePolicy {
  const stays = kind === "totp" || kind === "hotp" || kind === "multisig";
  const collect = args.collect ?? before?.policy.collect ?? (stays ? "nobody" : "organiser");
  const quorum = args.quorum ?? before?.policy.quorum ?? 0;
  if (collect === "nobody" && args.quorum !== null && args.quorum > 0) {
    throw new Fault("usage", "--quorum needs --collect organiser or --collect participants");
  }
  return { collect, quorum: collect === "nobody" ? 0 : quorum };
}

/** All that is signed at the opening, for who was asked: with what it says by itself. */
function wishLines({ name, purpose, output, policy, seats, minimum, commitMs, revealMs }: Wish): string {
  const all = seats.length;
  const facts = aligned([
    ["name", name],
    ["purpose", purpose],
    ["becomes", outputText(output)],
    ["takes part", seats.map((seat) => plain(seat.name) + (seat.account === null ? "" : " (account)")).join(", ")],
    ["needs", minimum === null || minimum === all ? `all ${all}` : `${minimum} of ${all}`],
    ["stages", `${leftText(commitMs)} to commit, ${leftText(revealMs)} to reveal`],
    ["leaves", collectText({ policy, output })],
  ]);
  return ["What you sign now, nobody can change afterwards:", ...facts].join("\n");
}

/**
 * What is to be opened, asked for where nobody said; what was asked for is shown whole, and confirmed.
 *
 * @param before The run that is repeated.
 * @throws Fault usage, input_needed, interrupted
 */
export async function wishOf(
  ctx: Pick<Context, "term" | "asked">,
  args: Given,
  before: CeremonyInfo | null,
): Promise<Wish> {
  const asking: Asking = { ctx, asked: ctx.asked.length > 0 };
  const seats = await seatsOf(asking, args, before);
  const purpose = await purposeOf(asking, args, before);
  const output = await specOf(asking, args, before, seats.length);
  const wish: Wish = {
    name: args.name,
    purpose,
    output,
    policy: policyOf(args, before, output),
    seats,
    minimum: args.minimum ?? (before?.seats.length === seats.length ? before.minimum : null),
    commitMs: args.commitTime ?? before?.commitMs ?? HOUR_MS,
    revealMs: args.revealTime ?? before?.revealMs ?? HOUR_MS,
    again: args.again,
    replace: args.replace,
  };
  if (asking.asked) {
    await ctx.term.steps.say(wishLines(wish));
    await ctx.term.confirm("Open it? Otherwise say more by flags: keyhold ceremony open --help");
  }
  return wish;
}
