import { agentSocket, agentUsable } from "../client/agent.ts";
import type { CeremonyClient } from "../client/ceremonyapi.ts";
import { defaultProfile, listProfiles, type Profile, readProfile } from "../client/profile.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { AbortReason, Transcript } from "../protocol/ceremony/model.ts";
import { type Evidence, type Verdict, verifyTranscript } from "../protocol/ceremony/verify.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { givenPassword, readSecretFile } from "../ui/password.ts";
import { homeOf, wantedProfile, withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { decodeOpening, decodeTranscript, TRANSCRIPT_MAX_BYTES } from "../wire/ceremony/transcript.ts";
import { parsePin } from "../wire/pin.ts";
import { outputText } from "./ceremonyshown.ts";

const OPENING_MAX = 4_096;

/** Whether this vault is in the transcript could be seen. */
type Own =
  | { readonly at: "known"; readonly own: NonNullable<Evidence["own"]> }
  | { readonly at: "no part" | "locked" | "no vault" };

/** This vault's own part, where the vault opens without a question. */
async function ownPart(ctx: Context, ceremonyId: string): Promise<Own> {
  const home = homeOf(ctx);
  const profile = readProfile(home.profiles, (await wantedProfile(ctx)) ?? defaultProfile(home.profiles) ?? "default");
  if (profile === null || profile.loggedOut) return { at: "no vault" };
  const given = await givenPassword(ctx);
  if (given === null && !(await agentUsable(agentSocket(ctx.dirs.runtime, profile.name)))) return { at: "locked" };
  const ask = (client: Pick<CeremonyClient, "ceremonyOwn">) => client.ceremonyOwn({ ceremonyId });
  const found = await withClient(ctx, ask, given ?? undefined);
  if (found === null) return { at: "no part" };
  const own = { key: Uint8Array.fromHex(found.publicKeyHex), commitment: Uint8Array.fromHex(found.commitmentHex) };
  return { at: "known", own };
}

/** Whether a home pins the server of a transcript, without a password: pins lie open in its profiles. */
type Pinned =
  /** By this profile, which is not the one in use where `other` is set. */
  | { readonly at: "same"; readonly profile: string; readonly other: boolean }
  | { readonly at: "another"; readonly profile: string; readonly url: string }
  | { readonly at: "none" };

async function pinnedAs(ctx: Context, serverPin: string): Promise<Pinned> {
  const { profiles } = homeOf(ctx);
  const used = (await wantedProfile(ctx)) ?? defaultProfile(profiles) ?? "default";
  const names = [used, ...listProfiles(profiles).filter((name) => name !== used)];
  const known = names.flatMap((name) => readable(profiles, name) ?? []);
  const same = known.find(({ server }) => server?.pin === serverPin);
  if (same) return { at: "same", profile: same.name, other: same.name !== used };
  const own = known.find(({ name, server }) => name === used && server !== null);
  return own?.server ? { at: "another", profile: own.name, url: own.server.url } : { at: "none" };
}

/** A damaged profile pins nothing. */
function readable(directory: string, name: string): Profile | null {
  try {
    return readProfile(directory, name);
  } catch (error) {
    if (error instanceof Fault) return null;
    throw error;
  }
}

function serverLine({ pinChecked, serverPin }: Verdict, pinned: Pinned, own: Own): string {
  if (pinChecked) return "✔ server       its pin is the one that you gave";
  // the ceremony's id binds the server's identity, which was held to its pin before anything was sent
  if (own.at === "known" && pinned.at !== "same") return "✔ server       the one with which this vault took part";
  switch (pinned.at) {
    case "same":
      return `✔ server       the one that ${pinned.other ? `your profile ${plain(pinned.profile)}` : "your vault"} pins`;
    case "another":
      return `! server       not ${plain(pinned.url)}, which your vault pins; compare its pin: ${serverPin}`;
    case "none":
      return `– server       no vault here pins a server; compare its pin: ${serverPin}`;
  }
}

/** Openings by index. The caller wipes them. @throws Fault bad_input, not_found, denied */
function readOpenings(files: readonly string[], ceremonyId: string, openings: Map<number, Uint8Array>): void {
  for (const file of files) {
    const bytes = readSecretFile(file, OPENING_MAX, "accept");
    try {
      const { ceremonyId: of, index, opening } = decodeOpening(bytes);
      if (openings.has(index)) wipe(openings.get(index));
      openings.set(index, opening);
      if (of !== ceremonyId) throw new Fault("bad_input", `"${file}" is an opening of another ceremony`);
    } finally {
      wipe(bytes);
    }
  }
}

/** Refuses a transcript in which a key that must be there is not. @throws Fault integrity */
function demandParticipant({ participants }: Verdict, keyHex: string): number {
  const found = participants.find((one) => one.keyHex === keyHex);
  if (found) return found.index;
  throw new Fault("integrity", "the participant that you asked for is not in this transcript", {
    why: `nobody committed with the key ${keyHex.slice(0, 16)}…`,
    hint: "do not trust this transcript",
  });
}

const OWN_TEXTS = {
  "no part": "this vault took no part",
  locked: "this vault is locked: keyhold unlock, or --participant HEX",
  "no vault": "there is no vault here; --participant HEX checks a key",
} as const;

/** What an abort rests on that no entry can prove (docs/protocol.md §10.4). */
const ABORT_WORDS: Readonly<Record<AbortReason, string>> = {
  absent: "that nobody else came in time is the server's word",
  withheld: "that nothing else came in time is the server's word",
  lied: "that opening is signed, that it does not fit is the server's word",
  closed: "that its organiser wished it is the server's word",
  failed: "that no key can be made of it is the server's word",
};

/** How it ended: ticked off only where the entries prove it. */
export function endLines(
  { result, aborted }: Pick<Verdict, "aborted"> & { result: Pick<NonNullable<Verdict["result"]>, "keyHashHex"> | null },
  took: number,
): string[] {
  if (result !== null)
    return [`✔ end          all ${took} revealed what they had committed to; key hash ${result.keyHashHex}`];
  if (aborted === null) return [];
  const who = aborted.culprits.length === 0 ? "" : ` (${aborted.culprits.map(plain).join(", ")})`;
  return [`– end          aborted: ${aborted.reason}${who}; ${ABORT_WORDS[aborted.reason]}`];
}

/** What was checked, a line each. */
function checkedLines(verdict: Verdict, own: Own, pinned: Pinned, named: number | null, lines: number): string[] {
  const took = verdict.participants.filter(({ keyHex }) => keyHex !== null);
  const missing = took.filter(({ opened }) => !opened).map(({ name }) => plain(name));
  const shown = missing.length > 8 ? `${missing.length} participants` : missing.join(", ");
  const seat = verdict.ownIndex ?? named;
  return [
    `✔ file         ${lines} lines, each whole and in its one form`,
    "✔ order        each entry holds the hash of the one before",
    "✔ signatures   organiser, server, and every participant",
    `✔ commitments  ${took.length}, all made before the server showed its part`,
    ...endLines(verdict, took.length),
    seat !== null
      ? `✔ you          number ${seat}, and counted`
      : `– you          not checked: ${own.at === "known" ? "" : OWN_TEXTS[own.at]}`,
    ...(verdict.result === null
      ? []
      : [
          verdict.result.reproduced
            ? "✔ key          computed anew from all openings: it is this one"
            : `– key          not computed anew: it takes the openings of ${shown}`,
        ]),
    serverLine(verdict, pinned, own),
  ];
}

function linesOf(bytes: Uint8Array): number {
  return bytes.reduce((count, byte) => count + (byte === 0x0a ? 1 : 0), 0);
}

/** The transcript in a file. */
function readTranscript(file: string): { readonly transcript: Transcript; readonly lines: number } {
  const bytes = readSecretFile(file, TRANSCRIPT_MAX_BYTES + 1, "accept");
  return { transcript: decodeTranscript(bytes), lines: linesOf(bytes) };
}

export const ceremonyVerify = defineCommand({
  args: {
    file: { type: "positional", hint: "FILE", description: "a transcript", ask: "File of the transcript" },
    opening: {
      type: "list",
      hint: "FILE",
      description: "an opening; those of all participants give the key anew (repeat)",
    },
    pin: { type: "string", hint: "PIN", description: "the server's pin, which must be that of the transcript" },
    participant: { type: "string", hint: "HEX", description: "key of a participant that must be in it, 64 digits" },
  },
  data: "{ceremonyId, name, purpose, output, status, serverPin, enclaveHex, keyHex, openedAt, endedAt, transcriptHashHex, previous, participants:[{index, name, account, function, keyHex, commitmentHex, revealed, opened, own}], aborted, result: {keyHashHex, custody, keyId, version, publicKeyHex, descriptor, reproduced} | null, ownIndex, pinChecked, recomputed, ownChecked, pinnedBy}",
  details: `Needs no server and no account. Exit 8 where anything in it does not hold, with the line and the record; a ceremony that was
aborted is verified as well. Where the vault is open, it also sees that your own commitment is in it and was counted. It says
whether the server is the one that your profile pins, which needs no password.`,
  examples: [
    ["keyhold ceremony verify backup-key.ceremony", "order, signatures, commitments, and your own part"],
    [
      "keyhold ceremony verify backup-key.ceremony --opening ann.opening --opening ben.opening",
      "and the key itself, of two participants",
    ],
  ],
  run: async (args, ctx) => {
    const keyHex = args.participant?.toLowerCase() ?? null;
    if (keyHex !== null && !/^[0-9a-f]{64}$/.test(keyHex))
      throw new Fault("usage", "--participant takes a key of 64 hex digits");
    const pin = args.pin === null ? null : parsePin(args.pin);
    const { transcript, lines } = readTranscript(args.file);
    // what it says of itself is verified before this vault is asked
    const { ceremonyId } = await verifyTranscript(transcript);
    const openings = new Map<number, Uint8Array>();
    try {
      readOpenings(args.opening, ceremonyId, openings);
      const own = await ownPart(ctx, ceremonyId);
      const evidence: Evidence = {
        openings,
        ...(own.at === "known" && { own: own.own }),
        ...(pin !== null && { pin }),
      };
      const verdict = await verifyTranscript(transcript, evidence);
      const pinned = await pinnedAs(ctx, verdict.serverPin);
      const named = keyHex === null ? null : demandParticipant(verdict, keyHex);
      const { openedAtMs, endedAtMs, ...rest } = verdict;
      const iso = (ms: number) => new Date(ms).toISOString();
      const times = { openedAt: iso(openedAtMs), endedAt: iso(endedAtMs) };
      const data = {
        ...rest,
        ...times,
        recomputed: verdict.result?.reproduced ?? false,
        ownChecked: own.at === "known",
        pinnedBy: pinned.at === "same" ? pinned.profile : null,
      };
      const head = `${plain(verdict.name)}: ${outputText(verdict.output)}, ${verdict.status === "stored" ? `made by ${verdict.participants.filter(({ revealed }) => revealed).length}` : "aborted"}`;
      return result(data, () => [head, ...checkedLines(verdict, own, pinned, named, lines)].join("\n"));
    } finally {
      wipe(...openings.values());
    }
  },
});
