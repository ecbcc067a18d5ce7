import { beforeAll, describe, expect, test } from "bun:test";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import type { ErrorCode } from "../../../src/errors.ts";
import type { CeremonyId } from "../../../src/ids.ts";
import { commitmentOf } from "../../../src/protocol/ceremony/contribution.ts";
import { abortBody, admit, ceremonyState, findEntry, nextEntry } from "../../../src/protocol/ceremony/life.ts";
import type { EntryBody, Transcript } from "../../../src/protocol/ceremony/model.ts";
import { entryHash, revealBytes, signEntry, signJoin } from "../../../src/protocol/ceremony/records.ts";
import { OPENED_AT, type PureCeremony, type PureOptions, pureCeremony, STAGE } from "../../support/pureceremony.ts";
import { seeded } from "../../support/seeded.ts";

const T = OPENED_AT + 1_000;
const ENDED = OPENED_AT + STAGE;

function world(options: Partial<PureOptions> = {}): Promise<PureCeremony> {
  const random = seeded(3);
  return pureCeremony({ random: (length) => random.bytes(length), participants: 3, ...options });
}

function refused(w: PureCeremony, body: EntryBody, code: ErrorCode, message: string, atMs = T) {
  const state = w.stateAt(atMs);
  expect(() => admit(state, body, atMs)).toThrow(expect.objectContaining({ code, message }));
  // what is refused now is refused in a transcript, where it is named
  const { seq, hash, atMs: last } = state.head;
  const entry = { seq: seq + 1, previous: hash, atMs: Math.max(atMs, last), body };
  const forged: Transcript = {
    ...w.transcript(),
    entries: [...w.entries, signEntry(w.enclave, w.ceremonyId, entry)],
  };
  expect(() => ceremonyState(forged, atMs)).toThrow(
    expect.objectContaining({ code: "integrity", message: expect.stringContaining(`line ${seq + 2}, `) }),
  );
}

describe("the way of a ceremony", () => {
  test("open, commit, freeze, reveal, combine, stored: each with what is missing and what is due", async () => {
    const w = await world();
    expect(w.stateAt(T)).toMatchObject({ status: "open", missing: [1, 2, 3], due: null, untilMs: ENDED });
    w.append(w.join(2), T);
    expect(w.stateAt(T)).toMatchObject({ status: "commit", missing: [1, 3], due: null, untilMs: ENDED });
    w.append(w.join(3), T);
    w.append(w.join(1), T + 1);
    expect(w.stateAt(T)).toMatchObject({ status: "freeze", due: { kind: "freeze" }, untilMs: null, t1: null });
    expect(w.stateAt(T).joins.map((one) => one.join.index)).toEqual([1, 2, 3]);
    w.append(w.freeze(), T + 2);
    const frozen = w.stateAt(T);
    expect(frozen).toMatchObject({ status: "reveal", missing: [1, 2, 3], untilMs: T + 2 + STAGE, seed: w.seed });
    w.append(await w.reveal(3), T + 3);
    w.append(await w.reveal(1), T + 3);
    expect(w.stateAt(T)).toMatchObject({ status: "reveal", missing: [2], due: null });
    w.append(await w.reveal(2), T + 3);
    expect(w.stateAt(T)).toMatchObject({ status: "combine", missing: [], due: { kind: "result" }, untilMs: null });
    w.append(await w.result(), T + 4);
    const stored = w.stateAt(T);
    expect(stored).toMatchObject({ status: "stored", missing: [], due: null, untilMs: null });
    expect(stored.head).toMatchObject({ seq: 8, atMs: T + 4 });
    expect(ceremonyState(w.transcript(), T)).toEqual(stored);
  });

  test("enough have come when the time is over: those are frozen", async () => {
    const w = await world({ draft: { minimum: 2 } });
    w.append(w.join(1), T);
    w.append(w.join(3), T);
    expect(w.stateAt(ENDED - 1)).toMatchObject({ status: "commit", due: null });
    expect(w.stateAt(ENDED)).toMatchObject({ status: "freeze", missing: [2], due: { kind: "freeze" } });
    refused(w, w.join(2), "stale", "the time for commitments is over", ENDED);
    w.append(w.freeze(), ENDED + 5);
    expect(w.stateAt(ENDED)).toMatchObject({ status: "reveal", missing: [1, 3], untilMs: ENDED + 5 + STAGE });
  });

  test("an organiser may close the commitments early once enough have come, not before", async () => {
    const w = await world({ draft: { minimum: 2 } });
    w.append(w.join(1), T);
    refused(w, w.freeze(), "conflict", "1 have committed, 2 must");
    w.append(w.join(3), T);
    w.append(w.freeze(), T);
    refused(w, w.join(2), "stale", "the commitments are already frozen");
  });

  test("too few came: absent, and who is named", async () => {
    const w = await world({ draft: { minimum: 2 } });
    w.append(w.join(2), T);
    expect(() => abortBody(w.stateAt(T), "absent")).not.toThrow();
    refused(w, abortBody(w.stateAt(T), "absent"), "conflict", "the stage is not over yet", ENDED - 1);
    const late = w.stateAt(ENDED);
    expect(late).toMatchObject({ status: "commit", due: { kind: "abort", reason: "absent", culprits: [1, 3] } });
    w.end("absent", ENDED);
    expect(w.stateAt(T)).toMatchObject({ status: "aborted", due: null, abort: { culprits: [1, 3] } });
  });

  test("one does not reveal: withheld, and who is named", async () => {
    const w = await world();
    await w.go("freeze");
    w.append(await w.reveal(2), T + 60_000);
    const { untilMs } = w.stateAt(T);
    const over = untilMs ?? 0;
    refused(w, abortBody(w.stateAt(T), "withheld"), "conflict", "the stage is not over yet", over - 1);
    refused(w, await w.reveal(3), "stale", "the time for reveals is over", over);
    expect(w.stateAt(over)).toMatchObject({
      status: "reveal",
      due: { kind: "abort", reason: "withheld", culprits: [1, 3] },
    });
    w.end("withheld", over);
    expect(w.stateAt(over)).toMatchObject({ status: "aborted", abort: { reason: "withheld", culprits: [1, 3] } });
  });

  test("one lies: named with what it signed", async () => {
    const w = await world();
    await w.go("freeze");
    const { reveal } = await w.reveal(2);
    const lie = (more: object): EntryBody => ({ kind: "abort", reason: "lied", culprits: [2], reveal, ...more });
    refused(w, lie({ culprits: [3] }), "bad_input", "the abort names others than those to blame");
    refused(w, lie({ culprits: [] }), "bad_input", "the abort names others than those to blame");
    refused(w, lie({ reveal: null }), "bad_input", "an opening belongs to a lie, and to nothing else");
    refused(
      w,
      lie({ reason: "closed", culprits: [] }),
      "bad_input",
      "an opening belongs to a lie, and to nothing else",
    );
    const signature = new Uint8Array(64);
    const unsigned = "the participant's signature under its opening does not hold";
    refused(w, lie({ reveal: { ...reveal, signature } }), "denied", unsigned);
    refused(w, lie({}), "stale", "the time for reveals is over", T + 2 * STAGE);
    w.append(lie({}), T);
    expect(w.stateAt(T)).toMatchObject({ status: "aborted", abort: { reason: "lied", culprits: [2] } });
  });

  test("nothing after the end, whichever it is", async () => {
    for (const last of ["stored", "closed"] as const) {
      const w = await world({ accounts: [2] });
      const before = await world({ accounts: [2] });
      await before.go("reveal");
      const bodies: EntryBody[] = [
        ...before.entries.map(({ entry }) => entry.body),
        await before.result(),
        ...(["absent", "withheld", "closed", "failed"] as const).map(
          (reason): EntryBody => ({ kind: "abort", reason, culprits: [], reveal: null }),
        ),
      ];
      if (last === "stored") await w.go("stored");
      else w.end("closed", T);
      for (const body of bodies) refused(w, body, "conflict", "the ceremony has ended", T + 60_000);
    }
  });

  test("the organiser cannot end what everyone has revealed; a failure can", async () => {
    const w = await world();
    await w.go("reveal");
    refused(w, abortBody(w.stateAt(T), "closed"), "conflict", "a ceremony in status combine does not end as closed");
    w.end("failed", T + 60_000);
    expect(w.stateAt(T).status).toBe("aborted");
  });
});

describe("commitments", () => {
  let w: PureCeremony;
  beforeAll(async () => {
    w = await world({ accounts: [3] });
    w.append(w.join(1), T);
  });
  const signed = (index: number, change: object) => {
    const { join: made } = w.join(index);
    const { signer, invite } = w.participant(index);
    return { kind: "join" as const, join: signJoin(signer, invite, { ...made.join, ...change }) };
  };

  test("a seat is taken once; the same bytes again find the old entry", async () => {
    const taken = w.join(1);
    refused(w, taken, "conflict", "seat 1 is already taken");
    expect(findEntry(w.transcript(), taken)).toBe(w.entries[0] ?? null);
    expect(findEntry(w.transcript(), w.join(2))).toBeNull();
    const other = signed(1, { function: "argon2id" });
    expect(findEntry(w.transcript(), other)).toBeNull();
    refused(w, other, "conflict", "seat 1 is already taken");
    // while the time is over, too: who sends it again is told that it is there
    refused(w, taken, "conflict", "seat 1 is already taken", ENDED);
  });

  test("by the seat's invite alone, signed by the participant's own key", () => {
    const { join: made } = w.join(2);
    const [one, two] = [w.participant(1), w.participant(2)];
    const stranger: EntryBody = { kind: "join", join: signJoin(two.signer, one.invite, made.join) };
    refused(w, stranger, "denied", "this is not the invite of seat 2");
    const claimed: EntryBody = { kind: "join", join: signJoin(one.invite, two.invite, made.join) };
    refused(w, claimed, "denied", "the participant's signature under its commitment does not hold");
  });

  test("an account's seat needs its entry, once, by an account's seat alone", () => {
    refused(w, w.join(3), "denied", "no account has taken seat 3 yet");
    refused(w, w.seat(1), "denied", "seat 1 is not an account's");
    refused(w, { ...w.seat(3), index: 9 }, "bad_input", "there is no seat 9");
    refused(w, { ...w.seat(3), invite: w.participant(2).invite.publicKey }, "conflict", "this key is another seat's");
    refused(w, w.seat(3), "stale", "the time for commitments is over", ENDED);
    w.append(w.seat(3), T);
    refused(w, w.seat(3), "conflict", "seat 3 is already taken");
    admit(w.stateAt(T), w.join(3), T);
  });

  test("no key, commitment or share serves twice", async () => {
    const one = w.participant(1);
    const sameKey = { ...w.join(2).join.join, key: one.signer.publicKey };
    const twice: EntryBody = { kind: "join", join: signJoin(one.signer, w.participant(2).invite, sameKey) };
    const message = "another participant has this key, share or commitment";
    refused(w, twice, "conflict", message);
    const { commitment } = w.join(1).join.join;
    refused(w, signed(2, { commitment }), "conflict", message);
    const wallet = await world({ draft: multisig(3) });
    wallet.append(wallet.join(1), T);
    refused(
      wallet,
      wallet.join(2, { share: secp256k1.getPublicKey(wallet.participant(1).scalar) }),
      "conflict",
      message,
    );
  });

  test("for this ceremony and a seat of it, with keys that work", () => {
    const ceremonyId = "ab".repeat(32) as CeremonyId;
    refused(w, signed(2, { ceremonyId }), "bad_input", "the commitment is for another ceremony");
    refused(w, signed(2, { index: 4 }), "bad_input", "there is no seat 4");
    const nothing = "nothing can be sealed to the participant's key";
    refused(w, signed(2, { sealing: new Uint8Array(32) }), "bad_input", nothing);
    const share = secp256k1.getPublicKey(w.participant(2).scalar);
    const alone = "a share belongs to a multisig wallet, and to nothing else";
    refused(w, signed(2, { share }), "bad_input", alone);
  });

  test("of a wallet: a point, always", async () => {
    const wallet = await world({ draft: multisig(3) });
    const alone = "a share belongs to a multisig wallet, and to nothing else";
    refused(wallet, wallet.join(1, { share: null }), "bad_input", alone);
    const none = "the participant's share is no point of secp256k1";
    refused(wallet, wallet.join(1, { share: new Uint8Array(33).fill(5) }), "bad_input", none);
    const long = secp256k1.getPublicKey(wallet.participant(1).scalar, false);
    refused(wallet, wallet.join(1, { share: long }), "bad_input", none);
    await wallet.go("stored");
    expect(ceremonyState(wallet.transcript(), T)).toMatchObject({ status: "stored", result: { stored: null } });
  });

  test("late is late", () => {
    refused(w, w.join(2), "stale", "the time for commitments is over", ENDED);
    admit(w.stateAt(ENDED - 1), w.join(2), ENDED - 1);
  });
});

const multisig = (threshold: number): Partial<PureCeremony["draft"]> => ({
  output: { kind: "multisig", threshold, network: "mainnet" },
  policy: { collect: "nobody", quorum: 0 },
});

describe("freeze and reveals", () => {
  let w: PureCeremony;
  beforeAll(async () => {
    w = await world({ draft: { minimum: 2 } });
    w.append(w.join(1), T);
    w.append(w.join(3), T);
  });

  test("T1 is over the commitments that are there, and the seed is the one committed to", () => {
    const right = w.freeze();
    refused(w, { ...right, t1: new Uint8Array(32) }, "bad_input", "T1 is not over the commitments that are there");
    const other = "the server's seed is not the one that it committed to";
    refused(w, { ...right, seed: new Uint8Array(32) }, "bad_input", other);
  });

  test("no reveal before the freeze, no freeze before anybody came", async () => {
    refused(w, await w.reveal(1), "conflict", "the commitments are not frozen yet");
    const fresh = await world();
    refused(fresh, fresh.freeze(), "conflict", "nobody has committed yet");
  });

  test("a reveal is its participant's, over these commitments, to the manifest's key, once", async () => {
    w.append(w.freeze(), T);
    refused(w, w.freeze(), "conflict", "the commitments are already frozen");
    const body = await w.reveal(1);
    const { signer } = w.participant(1);
    const changed = (change: object): EntryBody => {
      const reveal = { ...body.reveal.reveal, ...change };
      return { kind: "reveal", reveal: { reveal, signature: signer.sign(revealBytes(reveal)) } };
    };
    refused(w, await w.reveal(2), "denied", "seat 2 has not committed to anything");
    const ceremonyId = "ab".repeat(32);
    refused(w, changed({ ceremonyId }), "bad_input", "the opening is for another ceremony");
    const t1 = new Uint8Array(32);
    const frozen = "the opening names other commitments than those that are frozen";
    refused(w, changed({ t1 }), "bad_input", frozen);
    const key = "the opening is sealed to another key than the manifest's";
    refused(w, changed({ keyNumber: 2 }), "bad_input", key);
    const unsigned = "the participant's signature under its opening does not hold";
    refused(w, changed({ index: 3 }), "denied", unsigned);
    w.append(body, T);
    expect(findEntry(w.transcript(), body)).toBe(w.entries.at(-1) ?? null);
    refused(w, body, "conflict", "participant 1 has already revealed");
    const again = await w.reveal(1);
    expect(findEntry(w.transcript(), again)).toBeNull();
    refused(w, again, "conflict", "participant 1 has already revealed");
    refused(w, await w.reveal(1), "conflict", "participant 1 has already revealed", T + 2 * STAGE);
  });

  test("no result while a reveal is missing, and then the one that the manifest asks for", async () => {
    const done = await world({ draft: { minimum: 2 } });
    await done.go("reveal");
    const right = await done.result();
    refused(w, right, "conflict", "not everyone has revealed");
    const { output, stored } = right;
    const other = "the result is not what the manifest asks for";
    refused(done, { ...right, output: { ...output, publicKey: new Uint8Array(32) } }, "bad_input", other);
    refused(done, { ...right, output: { ...output, descriptor: "wsh()" } }, "bad_input", other);
    const keys = [{ index: 1, publicKey: new Uint8Array(33) }];
    refused(done, { ...right, output: { ...output, keys } }, "bad_input", other);
    const custody = "the result's custody is not that of its output";
    refused(done, { ...right, custody: "self-custodial" }, "bad_input", custody);
    refused(done, { ...right, stored: null }, "bad_input", custody);
    const place = "the result lies under another key of the store than the manifest says";
    if (!stored) throw new Error("nothing stored");
    refused(done, { ...right, stored: { ...stored, version: 2 } }, "bad_input", place);
    const keyId = "cd".repeat(32) as typeof stored.keyId;
    refused(done, { ...right, stored: { ...stored, keyId } }, "bad_input", place);
    done.append(right, T + 60_000);
  });

  test("a result that replaces a key is its next version", async () => {
    const replaces = "cd".repeat(32) as NonNullable<PureCeremony["draft"]["replaces"]>;
    const next = await world({ draft: { replaces } });
    await next.go("reveal");
    const right = await next.result();
    const place = "the result lies under another key of the store than the manifest says";
    refused(next, { ...right, stored: { keyId: replaces, version: 1 } }, "bad_input", place);
    next.append(right, T + 60_000);
  });
});

describe("a transcript's own order", () => {
  let w: PureCeremony;
  let whole: Transcript;
  beforeAll(async () => {
    w = await world();
    whole = await w.go("stored");
  });
  const broken = (at: number, change: object, message: string, trust: "nothing" | "head" = "nothing") => {
    const entries = whole.entries.map((signed, i) =>
      i === at ? signEntry(w.enclave, w.ceremonyId, { ...signed.entry, ...change }) : signed,
    );
    expect(() => ceremonyState({ ...whole, entries }, T, trust)).toThrow(
      expect.objectContaining({ code: "integrity", message }),
    );
  };

  test("numbers, links and times are held to what is before", () => {
    broken(2, { seq: 4 }, "line 4, commitment of participant 3 (carol): it is numbered 4 and stands at 3");
    broken(3, { previous: new Uint8Array(32) }, "line 5, freeze: it does not follow the record before it");
    broken(1, { atMs: OPENED_AT }, "line 3, commitment of participant 2 (bob): it is older than the record before it");
    broken(0, { atMs: OPENED_AT - 1 }, expect.stringContaining("it is older than the record before it"));
  });

  test("who trusts the head verifies its signature, and the chain to it", () => {
    const entries = whole.entries.map((signed, at) => (at < 7 ? { ...signed, signature: new Uint8Array(64) } : signed));
    expect(ceremonyState({ ...whole, entries }, T, "head").status).toBe("stored");
    expect(() => ceremonyState({ ...whole, entries }, T)).toThrow("line 2, commitment of participant 1 (alice): ");
    broken(
      1,
      { atMs: OPENED_AT + 2_001 },
      "line 4, commitment of participant 3 (carol): it does not follow the record before it",
      "head",
    );
    const last = whole.entries.map((signed, at) => (at === 7 ? { ...signed, signature: new Uint8Array(64) } : signed));
    expect(() => ceremonyState({ ...whole, entries: last }, T, "head")).toThrow("line 9, result: ");
  });

  test("a clock that went back does not bring the next entry before the last one", async () => {
    const back = await world();
    back.append(back.join(1), T);
    expect(nextEntry(back.stateAt(0), back.join(2), OPENED_AT - 5).atMs).toBe(T);
  });

  test("256 participants are verified", async () => {
    const many = await world({ participants: 256, draft: { policy: { collect: "nobody", quorum: 0 } } });
    // not by `append`, which would replay the transcript for each
    let { head } = many.stateAt(T);
    for (let index = 1; index <= 256; index++) {
      const entry = { seq: index, previous: head.hash, atMs: T, body: many.join(index) };
      many.force(entry);
      head = { seq: index, hash: entryHash(many.ceremonyId, entry), atMs: T };
    }
    expect(ceremonyState(many.transcript(), T)).toMatchObject({ status: "freeze", head: { seq: 256 } });
  }, 30_000);

  test("a commitment does not hold for another seat", () => {
    const { join: made } = w.join(1);
    const { opening } = w.participant(1);
    expect(commitmentOf({ ...made.join, index: 2 }, opening)).not.toEqual(made.join.commitment);
  });
});
