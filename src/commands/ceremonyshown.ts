import type { CeremonyInfo, SeatInfo } from "../client/ceremonyapi.ts";
import { Fault } from "../errors.ts";
import type { AbortReason, CeremonyFunction, OutputSpec } from "../protocol/ceremony/model.ts";
import type { Rows } from "../ui/output.ts";
import { plain } from "../ui/text.ts";
import { aligned } from "./keyringshown.ts";

/** What `--json` shows of a ceremony. */
export const CEREMONY_DATA =
  "{ceremonyId, name, purpose, output, policy, url, pin, keyHex, words, status, until, minimum, commitMs, revealMs, seats:[{index, name, state, function, account, own}], organiser, aborted: {reason, culprits} | null, result: {keyId, version, custody, keyHashHex, publicKeyHex, descriptor} | null, next, releases, previous}";

/** Each function in one sentence; the first is the usual one. */
export const FUNCTION_TEXTS: Readonly<Record<CeremonyFunction, string>> = {
  "hkdf-sha256": "the usual one: quick, and nothing is better",
  "hkdf-sha512": "the same with the longer hash",
  "hmac-drbg": "the generator of NIST SP 800-90A, for who must name a standard",
  argon2id: "slow and hungry for memory, for who distrusts the chance of this computer and types words instead",
};

/** What comes of a ceremony, in words. */
export function outputText(output: OutputSpec): string {
  switch (output.kind) {
    case "totp":
      return `a secret for one-time passwords by the clock (${output.digits} digits, ${output.period} s)`;
    case "hotp":
      return `a secret for counted one-time passwords (${output.digits} digits)`;
    case "bytes":
      return `${output.length} secret bytes`;
    case "hedge":
      return "32 bytes that are mixed into signatures";
    case "secp256k1":
    case "p256":
    case "ed25519":
      return `a key pair, ${output.kind}`;
    case "rsa":
      return `a key pair, RSA of ${output.bits} bits`;
    case "bip39":
      return `${output.words} words of a wallet (BIP-39)`;
    case "multisig":
      return `a wallet of one key a participant, of which ${output.threshold} spend together (${output.network})`;
  }
}

const MARKS: Readonly<Record<SeatInfo["state"], string>> = {
  waiting: "·",
  committed: "◐",
  revealed: "✔",
  withheld: "✘",
  lied: "✘",
  absent: "✘",
};

/** What a seat does or did, in words. */
const STATES: Readonly<Record<SeatInfo["state"], string>> = {
  waiting: "not here yet",
  committed: "has committed",
  revealed: "has revealed",
  withheld: "withheld what it had committed to",
  lied: "revealed something else than it had committed to",
  absent: "did not come",
};

/** Seats beyond this are counted and not listed where the roster is drawn anew in place. */
const SEATS_SHOWN = 16;

const done = ({ state }: SeatInfo, status: CeremonyInfo["status"]): boolean =>
  state === "revealed" || (state === "committed" && (status === "open" || status === "commit" || status === "freeze"));

/** Who sits where and what they did; of more than `most` first of all oneself, and those for whom is waited. */
export function rosterLines({ seats: all, status }: CeremonyInfo, most = SEATS_SHOWN): string[] {
  const seats = all.toSorted((a, b) => a.index - b.index);
  const rank = (seat: SeatInfo) => (seat.own ? 0 : done(seat, status) ? 2 : 1);
  const first = seats.toSorted((a, b) => rank(a) - rank(b)).slice(0, most);
  const shown = first.toSorted((a, b) => a.index - b.index);
  const wide = Math.max(0, ...shown.map(({ name }) => Bun.stringWidth(plain(name))));
  const lines = shown.map((seat) => {
    const name = plain(seat.name);
    const gap = " ".repeat(wide - Bun.stringWidth(name));
    return `  ${MARKS[seat.state]} ${String(seat.index).padStart(2)}  ${name}${gap}  ${STATES[seat.state]}${seat.own ? "   (you)" : ""}`;
  });
  const left = seats.length - shown.length;
  if (left > 0)
    lines.push(`      and ${left} more, ${seats.filter((seat) => done(seat, status)).length} of all are done`);
  return lines;
}

/** Where a ceremony stands, in one line. @param nowMs By which `until` is told in minutes. */
export function stageText(info: CeremonyInfo, nowMs: number): string {
  const count = (state: SeatInfo["state"]) => info.seats.filter((seat) => seat.state === state).length;
  const [all, revealed] = [info.seats.length, count("revealed")];
  const committed = count("committed") + revealed;
  const until = info.until === null ? "" : `; ${leftText(Date.parse(info.until) - nowMs)} left`;
  switch (info.status) {
    case "open":
    case "commit":
      return `Committing: ${committed} of ${all}${until}`;
    case "freeze":
      return "All have committed: the server shows its own part now";
    case "reveal":
      return `Revealing: ${revealed} of ${committed}${until}`;
    case "combine":
      return "All have revealed: the key is being made";
    case "stored":
      return "Done: the key is made";
    case "aborted":
      return `Aborted: ${abortText(info)}`;
  }
}

/** A span of time for people. */
export function leftText(ms: number): string {
  const seconds = Math.max(0, Math.ceil(ms / 1_000));
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90
    ? `${minutes} min`
    : minutes < 2_880
      ? `${Math.round(minutes / 60)} h`
      : `${Math.round(minutes / 1_440)} days`;
}

const REASONS: Readonly<Record<AbortReason, string>> = {
  absent: "too few committed in time",
  withheld: "not all who had committed revealed in time",
  lied: "somebody revealed something else than was committed to",
  closed: "its organiser ended it",
  failed: "no key could be made of it",
};

function abortText({ aborted }: CeremonyInfo): string {
  if (aborted === null) return "the server does not say why";
  const who = aborted.culprits.length === 0 ? "" : ` (${aborted.culprits.map(plain).join(", ")})`;
  return `${REASONS[aborted.reason]}${who}`;
}

/** What an aborted ceremony ends a command with: it names who is to blame. */
export function abortFault(info: CeremonyInfo): Fault {
  const { reason = "failed", culprits = [] } = info.aborted ?? {};
  const code = (
    { absent: "timed_out", withheld: "timed_out", lied: "integrity", closed: "denied", failed: "conflict" } as const
  )[reason];
  return new Fault(code, `the ceremony was aborted: ${REASONS[reason]}`, {
    culprits,
    why: "no key was made, and nothing of what was drawn is used again",
    hint: `its organiser starts anew: keyhold ceremony open ${plain(info.name)} --again ${info.ceremonyId.slice(0, 16)} …`,
  });
}

/** True for a ceremony in which nothing happens any more. */
export const isOver = ({ status }: Pick<CeremonyInfo, "status">): boolean =>
  status === "stored" || status === "aborted";

/** A ceremony for people: what it is, where it stands, who takes part. */
export function ceremonyLines(info: CeremonyInfo, nowMs: number): string {
  const { result } = info;
  const facts = aligned([
    ["id", info.ceremonyId],
    ["purpose", info.purpose],
    ["becomes", outputText(info.output)],
    ["server", info.url],
    ["words", `${info.words.join(" ")}   (of the server's key: compare them aloud)`],
    ["needs", `${info.minimum} of ${info.seats.length} participants`],
    ["stages", `${leftText(info.commitMs)} to commit, ${leftText(info.revealMs)} to reveal`],
    ["leaves", collectText(info)],
    ...(info.previous === null ? [] : [["repeats", info.previous] as const]),
    ...(result === null ? [] : [["custody", result.custody] as const, ["key hash", result.keyHashHex] as const]),
    ...(result?.keyId ? [["stored", `${result.keyId}, version ${result.version}`] as const] : []),
    ...(result?.publicKeyHex ? [["public key", result.publicKeyHex] as const] : []),
    ...(result?.descriptor ? [["descriptor", result.descriptor] as const] : []),
  ]);
  return [
    `${plain(info.name)}: ${stageText(info, nowMs)}`,
    ...facts,
    "Participants",
    ...rosterLines(info, info.seats.length),
    ...releaseLines(info),
    ...(info.next === "" ? [] : [`Next: ${nextText(info)}`]),
  ].join("\n");
}

/** Commands for what may come next, by how it begins. */
const NEXT_COMMANDS: readonly (readonly [string, (name: string) => string])[] = [
  ["collect", (name) => `collect ${name}`],
  ["agree", (name) => `approve ${name}`],
  ["join", (name) => `join --ceremony ${name}`],
  ["reveal", (name) => `join --ceremony ${name}`],
  ["open another run", (name) => `open ${name} --again ${name}`],
];

/** What this vault may do next, with the command for it. */
function nextText({ next, name }: Pick<CeremonyInfo, "next" | "name">): string {
  const command = NEXT_COMMANDS.find(([begins]) => next.startsWith(begins))?.[1];
  return command === undefined ? plain(next) : `${plain(next)}\n  keyhold ceremony ${command(plain(name))}`;
}

/** What waits for this vault in all its ceremonies, a line each with the command for it. */
export function waitingLines(items: readonly CeremonyInfo[]): string[] {
  return items.flatMap((one) => {
    const name = plain(one.name);
    const own = one.seats.some((seat) => seat.own);
    const wishes = own ? one.releases.filter(({ done, approved }) => !done && !approved) : [];
    if (wishes.length > 0) {
      const who = wishes.map(({ by }) => plain(by)).join(", ");
      return [`${name}: ${who} wants to take it out of the store (keyhold ceremony approve ${name})`];
    }
    const { next } = one;
    if (/^(join|reveal)\b/.test(next)) return [`${name}: ${plain(next)} (keyhold ceremony join --ceremony ${name})`];
    return next.startsWith("somebody else") ? [`${name}: ${plain(next)}`] : [];
  });
}

/** Under which conditions the value leaves the store. */
export function collectText({ policy, output }: Pick<CeremonyInfo, "policy" | "output">): string {
  if (output.kind === "multisig") return "nothing is stored: each keeps its own key";
  const codes = output.kind === "totp" || output.kind === "hotp";
  // without a quorum the issuer may provision a one-time password, or send it on, whoever collects
  const issued =
    policy.quorum === 0
      ? "codes, or the whole key, to whom its organiser lets have them"
      : "codes to whom its organiser lets have them";
  if (policy.collect === "nobody") return codes ? issued : "never: the value stays in the server's key store";
  const who = policy.collect === "organiser" ? "to the organiser" : "to participants";
  const whole = policy.quorum === 0 ? `${who}, sealed` : `${who}, sealed, when ${policy.quorum} participants agree`;
  return codes ? `${whole}; ${issued}` : whole;
}

function releaseLines({ releases }: CeremonyInfo): string[] {
  if (releases.length === 0) return [];
  const lines = releases.map((one) => {
    const state = one.done ? "done" : `${one.approvals} of ${one.needed} agree${one.approved ? ", you too" : ""}`;
    return `  ${one.releaseHex.slice(0, 16)}  ${plain(one.by)} wishes to take the value out: ${state}`;
  });
  return ["Wishes", ...lines];
}

/** Rows of a list of ceremonies. */
export function ceremonyRows(items: readonly CeremonyInfo[], nowMs: number): Rows {
  const cells = items.map((one) => [
    one.name,
    one.ceremonyId.slice(0, 16),
    one.output.kind,
    stageText(one, nowMs),
    one.organiser ? "organiser" : one.seats.some(({ own }) => own) ? "participant" : "invited",
    one.next,
  ]);
  return { heads: ["NAME", "ID", "OUTPUT", "STATE", "YOU ARE", "NEXT"], cells };
}

/** What changed between two looks, a line each, for terminals that draw nothing in place. */
export function changes(before: CeremonyInfo | null, now: CeremonyInfo, nowMs: number): string[] {
  const known = new Map(before?.seats.map(({ index, state }) => [index, state]));
  const moved = now.seats.filter(({ index, state }) => (known.get(index) ?? "waiting") !== state);
  const lines = moved.map((seat) => `${plain(seat.name)} ${STATES[seat.state]}`);
  return before?.status === now.status && lines.length === 0 ? [] : [...lines, stageText(now, nowMs)];
}

/** What a participant may believe of a key that was made, and what not. */
export function beliefs(info: CeremonyInfo): string[] {
  const custodial = info.result?.custody !== "self-custodial";
  const took = info.seats.filter(({ state }) => state === "revealed").length;
  const name = plain(info.name);
  const own = info.seats.some((seat) => seat.own);
  return [
    `The key "${name}" is made: ${outputText(info.output)}.`,
    ...(own
      ? [
          `Yours is one of ${took} contributions in it. Nobody, the server included, could choose the key while one of them was honest: yours is enough.`,
        ]
      : []),
    custodial
      ? "You must still trust the server not to look: it put the key together and keeps it sealed."
      : "The server never saw your own key: it is in this vault. Back it up as you would a wallet.",
    "Proof for later, which needs no server:",
    `  keyhold ceremony transcript ${name} --out ${name}.ceremony`,
    `  keyhold ceremony verify ${name}.ceremony`,
    ...(info.next === "" ? [] : [`Next: ${nextText(info)}`]),
  ];
}
