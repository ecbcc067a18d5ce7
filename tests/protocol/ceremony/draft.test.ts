import { describe, expect, test } from "bun:test";
import { checkDraft } from "../../../src/protocol/ceremony/draft.ts";
import { ceremonyState } from "../../../src/protocol/ceremony/life.ts";
import type { CeremonyDraft, OutputSpec, Slot } from "../../../src/protocol/ceremony/model.ts";
import { pureCeremony, signedManifest } from "../../support/pureceremony.ts";
import { seeded } from "../../support/seeded.ts";

const random = seeded(11);
const w = await pureCeremony({ random: (length) => random.bytes(length), participants: 3, accounts: [3] });
const { draft } = w;
const [one, two, three] = draft.slots;
if (!one || !two || !three) throw new Error("no seats");

const policy = (collect: CeremonyDraft["policy"]["collect"], quorum: number) => ({ policy: { collect, quorum } });
const slots = (...all: readonly Slot[]) => ({ slots: all });
const many = (count: number): Slot[] =>
  Array.from({ length: count }, (_, at) => ({
    index: at + 1,
    name: `p${at}`,
    invite: random.bytes(32),
    account: null,
  }));
const wallet = (threshold: number, more: Partial<CeremonyDraft> = {}): Partial<CeremonyDraft> => ({
  output: { kind: "multisig", threshold, network: "mainnet" },
  ...policy("nobody", 0),
  ...more,
});
const out = (output: OutputSpec) => ({ output });
const replaces = "cd".repeat(32) as NonNullable<CeremonyDraft["replaces"]>;

describe("a draft", () => {
  test.each<[string, Partial<CeremonyDraft>]>([
    ["as it is", {}],
    ["256 seats", { slots: many(256), minimum: 2 }],
    ["two seats", { slots: many(2), minimum: 2 }],
    ["a minimum below all", { minimum: 2 }],
    ["a value that nobody may collect", policy("nobody", 0)],
    ["a value for the organiser alone", policy("organiser", 0)],
    ["a value that all must agree to", policy("participants", 3)],
    ["a wallet", wallet(2)],
    ["a wallet of 15", wallet(15, { slots: many(15), minimum: 15 })],
    ["another version", { replaces }],
  ])("may have: %s", (_, change) => {
    checkDraft({ ...draft, ...change });
    ceremonyState({ manifest: signedManifest({ ...draft, ...change }, w), entries: [] }, 0);
  });

  test.each<[string, Partial<CeremonyDraft>, string]>([
    ["one seat", slots(one), "2 to 256 participants"],
    ["257 seats", { slots: many(257) }, "2 to 256 participants"],
    ["another order", slots(two, one, three), "seats are numbered"],
    ["a gap", slots(one, { ...two, index: 3 }, { ...three, index: 4 }), "seats are numbered"],
    ["a seat from 0", slots({ ...one, index: 0 }, { ...two, index: 1 }), "seats are numbered"],
    ["one name twice", slots(one, { ...two, name: one.name }, three), "two seats have the same name"],
    ["one invite twice", slots(one, { ...two, invite: one.invite }, three), "two seats have the same invite"],
    [
      "one account twice",
      slots({ ...one, invite: null, account: three.account }, two, three),
      "two seats have the same account",
    ],
    ["a seat for nobody", slots({ ...one, invite: null }, two, three), "seat 1 is either"],
    ["a seat of both kinds", slots(one, { ...two, account: "x@example.org" }, three), "seat 2 is either"],
    ["a minimum of one", { minimum: 1 }, "the minimum is 2"],
    ["a minimum above all", { minimum: 4 }, "the minimum is 2"],
    [
      "a quorum above the minimum",
      { minimum: 2, ...policy("participants", 3) },
      "more participants would have to agree",
    ],
    ["a quorum for nothing", policy("nobody", 1), "nobody may collect"],
    ["a stage of no length", { commitMs: 999 }, "a stage lasts"],
    ["a stage for ever", { revealMs: 91 * 86_400_000 }, "a stage lasts"],
    ["an RSA key of 2,049 bits", out({ kind: "rsa", bits: 2_049 }), "rsa key has 2048, 3072, 4096 bits"],
    ["a mnemonic of 13 words", out({ kind: "bip39", words: 13 }), "12 or 24 words"],
    ["no bytes", out({ kind: "bytes", length: 0 }), "1 to 1024 bytes"],
    ["a wallet of 16", wallet(2, { slots: many(16), minimum: 16 }), "at most 15 participants"],
    ["a wallet without some", wallet(2, { minimum: 2 }), "needs all its participants"],
    ["a wallet of 4 of 3", wallet(4), "1 signature to as many"],
    ["a wallet of 0 of 3", wallet(0), "1 signature to as many"],
    ["a wallet to collect", wallet(2, policy("organiser", 0)), "nothing is kept in the store"],
    ["a wallet as another version", wallet(2, { replaces }), "nothing is kept in the store"],
  ])("is refused with: %s", (_, change, message) => {
    const wrong = { ...draft, ...change };
    expect(() => checkDraft(wrong)).toThrow(
      expect.objectContaining({ code: "bad_input", message: expect.stringContaining(message) }),
    );
    // signed by all of them it is no ceremony either
    expect(() => ceremonyState({ manifest: signedManifest(wrong, w), entries: [] }, 0)).toThrow(
      expect.objectContaining({ code: "integrity", message: expect.stringContaining("line 1, manifest: ") }),
    );
  });
});
