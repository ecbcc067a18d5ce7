import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createCeremonyClient } from "../../../src/client/ceremony/index.ts";
import { lookWithoutVault } from "../../../src/client/ceremony/joining.ts";
import { decodeModel, encodeModel } from "../../../src/client/model.ts";
import { Fault } from "../../../src/errors.ts";
import { decodeInvite, encodeInvite } from "../../../src/protocol/ceremony/invite.ts";
import { verifyTranscript } from "../../../src/protocol/ceremony/verify.ts";
import { decodeOpening, decodeTranscript } from "../../../src/wire/ceremony/transcript.ts";
import { testSurroundings } from "../../support/harness.ts";
import { rejected } from "../../support/hostile.ts";
import { joinWith, type Person, untilOver, type World, wish, world } from "./world.ts";

/* Ceremonies from their opening to the value, each participant with a vault of its own. */

// vaults are written and flushed at each step
setDefaultTimeout(60_000);

const worlds: World[] = [];
afterEach(async () => {
  for (const one of worlds.splice(0)) await one.end();
});

function newWorld(): World {
  const made = world();
  worlds.push(made);
  return made;
}

const NAMES = ["ann", "ben", "cleo", "dan", "eve"] as const;

async function five(change: Parameters<typeof wish>[1] = {}, names: readonly string[] = NAMES) {
  const made = newWorld();
  const at = await made.keeper();
  const organiser = await made.account("keeper", at);
  const people = await Promise.all(names.map((name) => made.local(name)));
  const { info, invites } = await organiser.client.ceremonyOpen(wish(names, change));
  return { made, at, organiser, people, info, invites };
}

async function joined(people: readonly Person[], invites: Awaited<ReturnType<typeof five>>["invites"]) {
  for (const [i, { client }] of people.entries()) await client.ceremonyJoin(joinWith(invites[i], i));
}

describe("a ceremony of five vaults without accounts", () => {
  test("all functions and both suites give one key, which the openings reproduce and the organiser collects", async () => {
    const { organiser, people, info, invites } = await five();
    expect(info).toMatchObject({
      status: "open",
      organiser: true,
      minimum: 5,
      seats: [{ own: false }, {}, {}, {}, {}],
    });
    expect(invites.map(({ name }) => name)).toEqual([...NAMES]);
    const [ann] = people as [Person];
    const shown = await ann.client.ceremonyLook({ invite: invites[0]?.invite ?? "" });
    expect(shown).toMatchObject({ index: 1, info: { ceremonyId: info.ceremonyId, words: info.words } });
    await joined(people, invites);
    const ended = await untilOver(people, "door");
    expect(ended).toMatchObject({ status: "stored", result: { custody: "custodial", version: 1 } });
    expect(ended.seats.map(({ state }) => state)).toEqual(Array(5).fill("revealed"));
    expect(ended.seats.map((seat) => seat.function)).toEqual([
      "hkdf-sha256",
      "hkdf-sha512",
      "hmac-drbg",
      "argon2id",
      "hkdf-sha256",
    ]);
    const transcript = decodeTranscript(await ann.client.ceremonyTranscript({ ceremony: "door" }));
    const openings = new Map<number, Uint8Array>();
    for (const { client } of people) {
      const { index, opening } = decodeOpening(await client.ceremonyOpening({ ceremony: "door" }));
      openings.set(index, opening);
    }
    const own = await ann.client.ceremonyOwn({ ceremonyId: info.ceremonyId });
    const verdict = await verifyTranscript(transcript, {
      openings,
      own: {
        key: Uint8Array.fromHex(own?.publicKeyHex ?? ""),
        commitment: Uint8Array.fromHex(own?.commitmentHex ?? ""),
      },
    });
    expect(verdict).toMatchObject({ ownIndex: 1, result: { reproduced: true, keyHashHex: ended.result?.keyHashHex } });
    const got = await organiser.client.ceremonyCollect({ ceremony: "door" });
    expect(got).toMatchObject({ kind: "totp", type: "totp", name: "door" });
    expect(new TextDecoder().decode(got.value)).toStartWith("otpauth://totp/");
    // again, the same
    expect((await organiser.client.ceremonyCollect({ ceremony: "door" })).value).toEqual(got.value);
    const fault = await rejected(ann.client.ceremonyCollect({ ceremony: "door" }), "denied");
    expect(fault.why).toContain("organiser");
  });

  test("a vault that was written and read again goes on with the same bytes", async () => {
    const { people, info, invites } = await five({}, ["ann", "ben"]);
    const [ann, ben] = people as [Person, Person];
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    const before = ann.open.box.model.held;
    expect(decodeModel(encodeModel(ann.open.box.model)).held).toEqual(before);
    // the same join again, in another process: nothing new is drawn
    const second = ann.again();
    await second.client.ceremonyJoin(joinWith(invites[0], 1));
    expect(second.open.box.model.held.ceremonies[0]?.own?.opening).toEqual(
      before.ceremonies[0]?.own?.opening as Uint8Array,
    );
    await ben.client.ceremonyJoin(joinWith(invites[1]));
    expect(await untilOver([second, ben], info.ceremonyId)).toMatchObject({ status: "stored" });
  });

  test("the opening is not handed out before the end", async () => {
    const { people, invites } = await five({}, ["ann", "ben"]);
    const [ann] = people as [Person];
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    await rejected(ann.client.ceremonyOpening({ ceremony: "door" }), "pending");
    await rejected(ann.client.ceremonyCollect({ ceremony: "door" }), "pending");
  });

  test("who withholds is named, and another run draws anew", async () => {
    const { at, organiser, people, info, invites } = await five({ revealMs: 5_000 });
    await joined(people, invites);
    const honest = people.slice(0, 4);
    for (const { client } of honest) await client.ceremonyAdvance({ ceremony: info.ceremonyId });
    at.server.advance(60_000);
    await at.sweep();
    const ended = await organiser.client.ceremony({ ceremony: "door" });
    expect(ended).toMatchObject({
      status: "aborted",
      aborted: { reason: "withheld", culprits: ["eve"] },
      result: null,
    });
    expect(ended.next).toContain("--again");
    expect(ended.seats.at(-1)?.state).toBe("withheld");
    // eve comes too late: nothing of hers leaves any more
    const [ann, eve] = [people[0] as Person, people[4] as Person];
    expect(await eve.client.ceremonyAdvance({ ceremony: info.ceremonyId })).toMatchObject({ status: "aborted" });
    expect(eve.open.box.model.held.ceremonies[0]?.own?.reveal).toBeNull();
    await rejected(organiser.client.ceremonyCollect({ ceremony: "door" }), "conflict");
    const again = await organiser.client.ceremonyOpen(wish(NAMES, { again: "door" }));
    expect(again.info.previous).toBe(info.ceremonyId);
    await joined(people, again.invites);
    expect(await untilOver(people, again.info.ceremonyId)).toMatchObject({ status: "stored" });
    const [first, second] = ann.open.box.model.held.ceremonies;
    expect(second?.own?.opening).not.toEqual(first?.own?.opening as Uint8Array);
    // the name means the run that made a key
    expect(await ann.client.ceremony({ ceremony: "door" })).toMatchObject({ status: "stored" });
    expect((await ann.client.ceremonies()).map(({ status }) => status)).toEqual(["stored", "aborted"]);
    // only what was aborted is repeated
    await rejected(
      organiser.client.ceremonyOpen(wish(NAMES, { again: again.info.ceremonyId, name: "other" })),
      "conflict",
    );
  });

  test("every participant has a private key of the wallet that no server ever had", async () => {
    const { people, info, invites } = await five(
      {
        output: { kind: "multisig", threshold: 2, network: "testnet" },
        policy: { collect: "nobody", quorum: 0 },
        name: "wallet",
      },
      ["ann", "ben", "cleo"],
    );
    await joined(people, invites);
    const ended = await untilOver(people, info.ceremonyId);
    expect(ended.result).toMatchObject({ custody: "self-custodial", keyId: null });
    const { secp256k1 } = await import("@noble/curves/secp256k1.js");
    const keys = new Set<string>();
    for (const { client } of people) {
      const got = await client.ceremonyCollect({ ceremony: "wallet" });
      expect(got).toMatchObject({ type: "secp256k1", kind: "multisig" });
      const point = Buffer.from(secp256k1.getPublicKey(got.value, true)).toString("hex");
      expect(ended.result?.descriptor).toContain(point);
      keys.add(point);
    }
    expect(keys.size).toBe(3);
  });

  test("a value leaves once enough participants have agreed", async () => {
    const policy = { collect: "participants", quorum: 2 } as const;
    const { people, info, invites } = await five({ policy, output: { kind: "ed25519" } }, ["ann", "ben", "cleo"]);
    const [ann, ben, cleo] = people as [Person, Person, Person];
    await joined(people, invites);
    await untilOver(people, info.ceremonyId);
    const fault = await rejected(ann.client.ceremonyCollect({ ceremony: "door" }), "pending");
    // who wishes for it has agreed to it
    expect(fault.message).toContain("1 of 2");
    const { releases, next } = await ben.client.ceremony({ ceremony: "door" });
    expect(releases).toMatchObject([{ by: "ann", approvals: 1, needed: 2, done: false, approved: false }]);
    expect(next).toContain("agree");
    // nobody has to ask for this one: it stands where all are listed, of a process that knows nothing yet
    const [listed] = await ben.again().client.ceremonies();
    expect([listed?.next, listed?.releases]).toEqual([next, releases]);
    expect(await ann.client.ceremonies()).toMatchObject([{ releases: [{ approved: true }] }]);
    const releaseHex = releases[0]?.releaseHex ?? "";
    await rejected(ben.client.ceremonyApprove({ ceremony: "door", releaseHex: "ab".repeat(32) }), "not_found");
    const agreed = await ben.client.ceremonyApprove({ ceremony: "door", releaseHex: releaseHex.slice(0, 8) });
    expect(agreed.releases).toMatchObject([{ approvals: 2, approved: true }]);
    // in another process, with the same bytes
    const got = await ann.again().client.ceremonyCollect({ ceremony: "door" });
    expect(got).toMatchObject({ type: "ed25519" });
    expect((await cleo.client.ceremony({ ceremony: "door" })).releases).toMatchObject([{ done: true }]);
  });

  test("an account takes the seat that is kept for it; everyone else is refused", async () => {
    const { made, at, organiser, people, invites } = await five(
      {
        seats: [
          { name: "ann", account: null },
          { name: "ben", account: "ben" },
        ],
      },
      ["ann"],
    );
    const [ann] = people as [Person];
    const [ben, mallory] = [await made.account("ben", at), await made.account("mallory", at)];
    expect(invites).toMatchObject([{ account: null }, { invite: null, account: "ben" }]);
    const waiting = await ben.client.ceremonies();
    expect(waiting).toMatchObject([{ name: "door", next: "join: your seat is free" }]);
    const seat = { ...joinWith(undefined), invite: null, ceremony: "door" };
    await ben.client.ceremonyJoin(seat);
    await rejected(mallory.client.ceremonyJoin(seat), "not_found");
    const whole = { ...seat, ceremony: waiting[0]?.ceremonyId ?? "" };
    await rejected(mallory.client.ceremonyJoin(whole), "denied");
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    expect(await untilOver([ann, ben], "door")).toMatchObject({ status: "stored" });
    expect(await organiser.client.ceremony({ ceremony: "door" })).toMatchObject({ status: "stored" });
  });

  test("an organiser closes the commitments early, or ends the ceremony; invites are shown until they are used", async () => {
    const { organiser, people, info, invites } = await five({ minimum: 2 }, ["ann", "ben", "cleo"]);
    const [ann, ben, cleo] = people as [Person, Person, Person];
    await joined([ann, ben], invites);
    const left = await organiser.client.ceremonyInvites({ ceremony: "door" });
    expect(left).toEqual([invites[2] as never]);
    await rejected(ann.client.ceremonyInvites({ ceremony: "door" }), "denied");
    await organiser.client.ceremonyClose({ ceremony: "door", abort: false });
    const late = await rejected(cleo.client.ceremonyJoin(joinWith(invites[2])), "stale");
    expect(late.hint).toContain("another run");
    const ended = await untilOver([ann, ben], info.ceremonyId);
    expect(ended).toMatchObject({ status: "stored", seats: [{}, {}, { state: "absent" }] });
    const second = await organiser.client.ceremonyOpen(wish(["ann", "ben"], { name: "other" }));
    expect(await organiser.client.ceremonyClose({ ceremony: second.info.ceremonyId, abort: true })).toMatchObject({
      status: "aborted",
      aborted: { reason: "closed", culprits: [] },
    });
  });

  test("an invite that somebody else has used first does not make the server a liar", async () => {
    const { made, people, invites } = await five({}, ["ann", "ben"]);
    const [ann] = people as [Person];
    const thief = await made.local("thief");
    await thief.client.ceremonyJoin(joinWith(invites[0]));
    const fault = await rejected(ann.client.ceremonyJoin(joinWith(invites[0])), "conflict");
    expect(fault.hint).toContain("organiser");
    expect(ann.open.box.model.held.ceremonies).toEqual([]);
  });

  test("without an account a ceremony cannot be opened, and what is not known is said so", async () => {
    const { people } = await five({}, ["ann", "ben"]);
    const [ann] = people as [Person];
    await rejected(ann.client.ceremonyOpen(wish(["a", "b"])), "bad_input");
    await rejected(ann.client.ceremony({ ceremony: "nothing" }), "not_found");
    await rejected(ann.client.ceremonyAdvance({ ceremony: "door" }), "not_found");
    await rejected(ann.client.ceremonyLook({ invite: "keyhold-ceremony:abc" }), "bad_input");
    expect(await ann.client.ceremonyOwn({ ceremonyId: "ab".repeat(32) })).toBeNull();
    expect(await ann.client.ceremonies()).toEqual([]);
  });
});

test("a server that is away is asked once for all that it has, and hides nothing", async () => {
  const policy = { collect: "participants", quorum: 2 } as const;
  const { at, organiser, people, info, invites } = await five({ policy }, ["ann", "ben"]);
  const [ann] = people as [Person];
  await joined(people, invites);
  await untilOver(people, info.ceremonyId);
  await ann.client.ceremony({ ceremony: info.ceremonyId });
  const other = await organiser.client.ceremonyOpen(wish(["ann", "ben"], { name: "other" }));
  await ann.client.ceremonyJoin(joinWith(other.invites[0]));
  let asked = 0;
  at.middle = async (operation, body, forward) => {
    if (operation !== "ceremony.get") return forward(operation, body);
    asked++;
    throw new Fault("unreachable", "it is gone");
  };
  const all = await ann.again().client.ceremonies();
  expect(all.map(({ name, status }) => [name, status])).toEqual([
    ["other", "commit"],
    ["door", "stored"],
  ]);
  expect([asked, ann.notices.filter((text) => text.includes("is away")).length]).toEqual([1, 1]);
});

test("an invite is looked at without a vault: free, used, and of a server that is another", async () => {
  const { made, at, people, invites } = await five({}, ["ann", "ben"]);
  const [first, second] = invites.map(({ invite }) => invite ?? "") as [string, string];
  const look = (invite: string) => lookWithoutVault(testSurroundings([]), invite, made);
  await people[0]?.client.ceremonyJoin(joinWith(invites[0], 0));
  expect(await look(first)).toMatchObject({ index: 1, info: { seats: [{ state: "committed", own: false }, {}] } });
  expect(await look(second)).toMatchObject({ index: 2, info: { seats: [{}, { state: "waiting" }] } });
  const { url, ceremonyId, index, seed } = decodeInvite(second);
  const changed = (change: Partial<Parameters<typeof encodeInvite>[0]>) =>
    look(encodeInvite({ url, pin: at.pin, ceremonyId, index, seed, ...change }));
  await rejected(changed({ pin: `sha256:${"A".repeat(43)}` }), "pin_mismatch");
  await rejected(changed({ index: 1 }), "bad_input");
  await rejected(changed({ ceremonyId: "4f".repeat(32) as never }), "not_found");
  await rejected(changed({ url: "https://nobody.test" }), "unreachable");
});

test("who has too many open ceremonies is told to end one: waiting ends none", async () => {
  const made = newWorld();
  const at = await made.keeper();
  const organiser = await made.account("keeper", at);
  const refusals = [{}, { retryAfterMs: 60_000 }];
  for (const details of refusals) {
    const { session } = organiser.open;
    if (session === null) throw new Error("no session");
    const call: typeof session.call = async (operation, ...rest) => {
      if (operation === "ceremony.open") throw new Fault("rate_limited", "too many open ceremonies", details);
      return session.call(operation, ...rest);
    };
    const open = { ...organiser.open, session: { ...session, call } };
    const { calls } = createCeremonyClient(open, { url: at.url, pin: at.pin }, made);
    const error = await calls.ceremonyOpen(wish(NAMES)).catch((fault: unknown) => fault);
    const hint = "retryAfterMs" in details ? "wait, then try again" : expect.stringContaining("close NAME --abort");
    expect(error).toMatchObject({ code: "rate_limited", hint });
  }
});
