import { beforeAll, describe, expect, test } from "bun:test";
import { pinOf } from "../../../src/crypto/pin.ts";
import type {
  EntryBody,
  OutputSpec,
  SignedCeremonyManifest,
  Transcript,
} from "../../../src/protocol/ceremony/model.ts";
import { ceremonyManifestBytes, entryHash, signEntry } from "../../../src/protocol/ceremony/records.ts";
import { type Evidence, verifyTranscript } from "../../../src/protocol/ceremony/verify.ts";
import {
  OPENED_AT,
  openingsOf,
  type PureCeremony,
  type PureOptions,
  pureCeremony,
  STAGE,
} from "../../support/pureceremony.ts";
import { seeded } from "../../support/seeded.ts";

function world(options: Partial<PureOptions> = {}, seed = 5): Promise<PureCeremony> {
  const random = seeded(seed);
  return pureCeremony({ random: (length) => random.bytes(length), participants: 3, ...options });
}

async function refused(transcript: Transcript, message: string, evidence: Evidence = {}, code = "integrity") {
  await expect(verifyTranscript(transcript, evidence)).rejects.toMatchObject({ code, message });
}

let w: PureCeremony;
let whole: Transcript;
beforeAll(async () => {
  w = await world();
  whole = await w.go("stored");
});

/** Signs the transcript anew from one entry on, as an enclave that lies could. */
function rewritten(at: number, change: (body: EntryBody) => EntryBody): Transcript {
  let previous = whole.entries[at]?.entry.previous ?? new Uint8Array(32);
  const entries = whole.entries.map((signed, i) => {
    if (i < at) return signed;
    const entry = { ...signed.entry, previous, body: i === at ? change(signed.entry.body) : signed.entry.body };
    previous = entryHash(w.ceremonyId, entry);
    return signEntry(w.enclave, w.ceremonyId, entry);
  });
  return { ...whole, entries };
}

describe("a transcript that holds", () => {
  test("says what it proves, without anything beside it", async () => {
    const verdict = await verifyTranscript(whole);
    expect(verdict).toMatchObject({
      ceremonyId: w.ceremonyId,
      name: "office-totp",
      status: "stored",
      serverPin: pinOf(w.server.publicKey),
      pinChecked: false,
      ownIndex: null,
      openedAtMs: OPENED_AT,
      endedAtMs: OPENED_AT + 8_000,
      aborted: null,
      previous: null,
      result: { custody: "custodial", version: 1, reproduced: false, descriptor: null },
    });
    expect(verdict.participants.map(({ name, revealed, opened, own }) => [name, revealed, opened, own])).toEqual([
      ["alice", true, false, false],
      ["bob", true, false, false],
      ["carol", true, false, false],
    ]);
    expect(JSON.parse(JSON.stringify(verdict))).toEqual(verdict);
  });

  test("with openings, pin and an own commitment it says more", async () => {
    const { key, commitment } = w.join(2).join.join;
    const pin = pinOf(w.server.publicKey);
    const all = await verifyTranscript(whole, { openings: openingsOf(w), own: { key, commitment }, pin });
    expect(all).toMatchObject({ ownIndex: 2, pinChecked: true, result: { reproduced: true } });
    expect(all.participants.map(({ opened, own }) => [opened, own])).toEqual([
      [true, false],
      [true, true],
      [true, false],
    ]);
    const some = new Map([...openingsOf(w)].slice(1));
    const fewer = await verifyTranscript(whole, { openings: some });
    expect(fewer.result?.reproduced).toBe(false);
    expect(fewer.participants.map(({ opened }) => opened)).toEqual([false, true, true]);
  });

  const outputs: readonly OutputSpec[] = [
    { kind: "totp", algorithm: "SHA1", digits: 6, period: 30, issuer: "", label: "x" },
    { kind: "hotp", algorithm: "SHA1", digits: 6, issuer: "", label: "x" },
    { kind: "hedge" },
    { kind: "secp256k1" },
    { kind: "p256" },
    { kind: "ed25519" },
    { kind: "rsa", bits: 2_048 },
    { kind: "bip39", words: 24 },
    { kind: "multisig", threshold: 2, network: "testnet" },
  ];
  test.each(outputs)(
    "of $kind is reproduced to the public key",
    async (output) => {
      const policy = output.kind === "multisig" ? { policy: { collect: "nobody", quorum: 0 } as const } : {};
      const one = await world({ draft: { output, ...policy } });
      const verdict = await verifyTranscript(await one.go("stored"), { openings: openingsOf(one) });
      expect(verdict.result?.reproduced).toBe(true);
    },
    60_000,
  );

  test.each([2, 7, 20])("of %d participants, in any order of arrival, it gives one key", async (participants) => {
    const keys: (string | undefined)[] = [];
    for (let round = 0; round < 3; round++) {
      const one = await world({ participants });
      const random = seeded(round);
      const order = one.participants.map(({ index }) => index).toSorted(() => random.next() - 0.5);
      const { result, transcriptHashHex } = await verifyTranscript(await one.go("stored", order), {
        openings: openingsOf(one),
      });
      expect(result?.reproduced).toBe(true);
      keys.push(result?.keyHashHex, transcriptHashHex);
    }
    const hashes = keys.filter((_, at) => at % 2 === 0);
    expect(new Set(hashes).size).toBe(1);
  });

  test("that ended without a key names who is to blame", async () => {
    const late = await world();
    await late.go("freeze");
    late.append(await late.reveal(2), OPENED_AT + 60_000);
    late.end("withheld", OPENED_AT + 2 * STAGE);
    const verdict = await verifyTranscript(late.transcript(), { openings: openingsOf(late) });
    expect(verdict).toMatchObject({
      status: "aborted",
      result: null,
      aborted: { reason: "withheld", culprits: ["alice", "carol"] },
    });
    const liar = await world();
    await liar.go("freeze");
    const { reveal } = await liar.reveal(3);
    liar.append({ kind: "abort", reason: "lied", culprits: [3], reveal }, OPENED_AT + 60_000);
    expect((await verifyTranscript(liar.transcript())).aborted).toEqual({ reason: "lied", culprits: ["carol"] });
    const empty = await world();
    empty.end("absent", OPENED_AT + STAGE);
    expect((await verifyTranscript(empty.transcript())).participants.every((p) => p.commitmentHex === null)).toBe(true);
  });
});

describe("a transcript that does not hold", () => {
  test("one that ends early, wherever", async () => {
    for (let length = 0; length < whole.entries.length; length++) {
      const cut = { ...whole, entries: whole.entries.slice(0, length) };
      await refused(
        cut,
        `line ${length + 2}, result: the transcript ends early: neither a result nor an abort follows`,
      );
    }
  });

  test("another server's", async () => {
    await refused(whole, "this transcript is another server's", { pin: pinOf(w.enclave.publicKey) }, "pin_mismatch");
  });

  test("a manifest that somebody else signed, or nobody", async () => {
    const { manifest } = whole.manifest;
    const bare = (signed: SignedCeremonyManifest) => ({ ...whole, manifest: signed });
    const server = w.server.sign(ceremonyManifestBytes(manifest));
    await refused(
      bare({ manifest, signature: server }),
      "line 1, manifest: the signature under the manifest does not hold",
    );
    const organiserSignature = new Uint8Array(64);
    const unsigned = { ...manifest, organiserSignature };
    const signature = w.enclave.sign(ceremonyManifestBytes(unsigned));
    await refused(
      bare({ manifest: unsigned, signature }),
      "line 1, manifest: the signature under the draft does not hold",
    );
    const { key } = manifest.draft;
    for (const broken of [
      { ...key, signature: key.enclaveSignature },
      { ...key, enclaveSignature: key.signature },
      { ...key, key: { ...key.key, number: 2 } },
    ]) {
      const other = { ...manifest, draft: { ...manifest.draft, key: broken } };
      await refused(
        bare({ manifest: other, signature }),
        "line 1, manifest: the signature under the server's key does not hold",
      );
    }
  });

  test("entries of another run of the same people", async () => {
    const other = await world({}, 6);
    const theirs = await other.go("stored");
    await expect(verifyTranscript({ ...whole, entries: theirs.entries })).rejects.toMatchObject({ code: "integrity" });
    const entries = whole.entries.map((mine, at) => (at === 1 ? (theirs.entries[at] ?? mine) : mine));
    await refused(
      { ...whole, entries },
      "line 3, commitment of participant 2 (bob): it does not follow the record before it",
    );
  });

  test("an opening that is another one, or nobody's", async () => {
    const openings = new Map(openingsOf(w));
    openings.set(3, new Uint8Array(32));
    const line = "line 4, commitment of participant 3 (carol): the opening that is given is not what was committed to";
    await refused(whole, line, { openings });
    await refused(whole, line, { openings: new Map([[3, new Uint8Array(16)]]) });
    const nobody = new Map([[4, new Uint8Array(32)]]);
    await refused(whole, "an opening is given for seat 4, where nobody committed", { openings: nobody }, "bad_input");
  });

  test("without the own commitment, or with another one", async () => {
    const { key, commitment } = w.join(2).join.join;
    const none = "line 5, freeze: your own commitment is not among them";
    await refused(whole, none, { own: { key: w.organiser.publicKey, commitment } });
    const other = "line 3, commitment of participant 2 (bob): it is not the commitment that you made";
    await refused(whole, other, { own: { key, commitment: new Uint8Array(32) } });
  });

  test("a result that the openings do not give: told by who has all of them", async () => {
    const openings = openingsOf(w);
    const lies: readonly [Partial<Extract<EntryBody, { kind: "result" }>>, string][] = [
      [{ t2: new Uint8Array(32) }, "T2"],
      [{ keyHash: new Uint8Array(32) }, "key"],
    ];
    for (const [change, what] of lies) {
      const lie = rewritten(8 - 1, (body) => ({ ...body, ...change }) as EntryBody);
      expect((await verifyTranscript(lie)).result?.reproduced).toBe(false);
      await refused(lie, `line 9, result: the openings give another ${what}`, { openings });
    }
    const pair = await world({ draft: { output: { kind: "ed25519" } } });
    await pair.go("reveal");
    const { output, ...rest } = await pair.result();
    const lie: EntryBody = { ...rest, output: { ...output, publicKey: new Uint8Array(32).fill(1) } };
    pair.append(lie, OPENED_AT + 60_000);
    await refused(pair.transcript(), "line 9, result: the openings give another public key", {
      openings: openingsOf(pair),
    });
  });

  test("what even the enclave cannot write: a participant's words", async () => {
    const other = w.participant(1).sealing;
    const forged = rewritten(1, (body) =>
      body.kind === "join" ? { ...body, join: { ...body.join, join: { ...body.join.join, sealing: other } } } : body,
    );
    await refused(forged, "line 3, commitment of participant 2 (bob): this is not the invite of seat 2");
    const moved = rewritten(5, (body) =>
      body.kind === "reveal"
        ? { ...body, reveal: { ...body.reveal, reveal: { ...body.reveal.reveal, sealedHash: other } } }
        : body,
    );
    const unsigned = "the participant's signature under its opening does not hold";
    await refused(moved, `line 7, reveal of participant 2 (bob): ${unsigned}`);
    const seed = rewritten(3, (body) => (body.kind === "freeze" ? { ...body, seed: other } : body));
    await refused(seed, "line 5, freeze: the server's seed is not the one that it committed to");
  });
});
