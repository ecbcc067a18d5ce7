import { randomBytes } from "node:crypto";
import { callClear, connect } from "../src/client/login.ts";
import { hpkeKeyPair, hpkeSeal } from "../src/crypto/hpke.ts";
import { signerFromSeed } from "../src/crypto/identity.ts";
import { sha256 } from "../src/crypto/kdf.ts";
import { ceremonyKeyOf } from "../src/protocol/ceremony/combine.ts";
import { commitmentOf, contributionOf } from "../src/protocol/ceremony/contribution.ts";
import { CEREMONY_FUNCTIONS, type CeremonyDraft, type SignedCeremonyJoin } from "../src/protocol/ceremony/model.ts";
import {
  ceremonyIdOf,
  draftBytes,
  openingInfo,
  revealBytes,
  signJoin,
  verifyCeremonyKey,
} from "../src/protocol/ceremony/records.ts";
import { openAccountSession } from "./account.ts";
import { type Measured, median, report, timed } from "./harness.ts";
import { familySeconds, inWorld, startServe } from "./processes.ts";

/**
 * F17: a ceremony of 100 participants at one server, from the draft to the stored key, over TLS. Participants are drawn
 * beforehand and act at once, as a server sees a crowd. The peer is the combination alone, in one process.
 */

const SHORT = process.argv.includes("--short");
const PEOPLE = SHORT ? 10 : 100;
const ROUNDS = 3;
const STAGE_MS = 3_600_000;

const random = (length: number) => new Uint8Array(randomBytes(length));
const around = { now: Date.now, random, notice: () => undefined };

function person(index: number) {
  const invite = signerFromSeed(random(32));
  const own = signerFromSeed(random(32));
  const opening = contributionOf(random(32), []);
  const fn = CEREMONY_FUNCTIONS[index % CEREMONY_FUNCTIONS.length] ?? "hkdf-sha256";
  return { index, invite, own, opening, function: fn };
}

await inWorld(async (world) => {
  const served = await startServe(world);
  const server = { url: served.url, pin: served.pin, caPem: null, tlsCaPem: null, statementNumber: 0 };
  const { link } = await connect(server, around);
  const session = await openAccountSession(link, served.url, "organiser");
  const seconds: number[] = [];
  const stages: { commit: number[]; reveal: number[] } = { commit: [], reveal: [] };
  const used: number[] = [];
  const peer: number[] = [];

  for (let round = 0; round < ROUNDS; round++) {
    const people = Array.from({ length: PEOPLE }, (_, i) => person(i + 1));
    const sealing = (await hpkeKeyPair(random(32))).publicKey;
    const organiser = signerFromSeed(random(32));
    const { items } = await callClear(link, "ceremony.keys", {});
    const [key] = items;
    if (!key) throw new Error("no key");
    const { sealing: to, number } = verifyCeremonyKey(key);
    const draft: CeremonyDraft = {
      key,
      organiser: organiser.publicKey,
      name: `bench-${round}`,
      purpose: "bench",
      output: { kind: "bytes", length: 32 },
      policy: { collect: "nobody", quorum: 0 },
      slots: people.map(({ index, invite }) => ({
        index,
        name: `person ${index}`,
        invite: invite.publicKey,
        account: null,
      })),
      minimum: PEOPLE,
      commitMs: STAGE_MS,
      revealMs: STAGE_MS,
      previous: null,
      replaces: null,
      nonce: random(32),
    };
    const before = familySeconds(served.pid);
    const beganMs = performance.now();
    const signature = organiser.sign(draftBytes(draft));
    const { manifest } = (await session.call("ceremony.open", { draft, signature })).output;
    const ceremonyId = ceremonyIdOf(manifest.manifest);
    const joins: SignedCeremonyJoin[] = people.map((one) => {
      const named = { ceremonyId, index: one.index, key: one.own.publicKey, function: one.function };
      return signJoin(one.own, one.invite, {
        ...named,
        sealing,
        share: null,
        commitment: commitmentOf(named, one.opening),
      });
    });
    const committing = await timed(() => Promise.all(joins.map((join) => callClear(link, "ceremony.join", { join }))));
    const frozen = await entryOf("freeze");
    async function entryOf(kind: "freeze" | "result") {
      for (;;) {
        let after = 0;
        for (;;) {
          const page = await callClear(link, "ceremony.get", { ceremonyId, after });
          for (const { entry } of page.entries) if (entry.body.kind === kind) return entry.body;
          after = page.entries.at(-1)?.entry.seq ?? after;
          if (!page.more) break;
        }
        await Bun.sleep(20);
      }
    }
    if (frozen.kind !== "freeze") throw new Error("not frozen");
    const { t1, seed } = frozen;
    const reveals = await Promise.all(
      people.map(async ({ index, own, opening }) => {
        const sealed = await hpkeSeal(to, openingInfo(ceremonyId, index, t1), opening, random);
        const reveal = { ceremonyId, index, t1, keyNumber: number, suite: "hpke", sealedHash: sha256(sealed) } as const;
        return { reveal: { reveal, signature: own.sign(revealBytes(reveal)) }, sealed };
      }),
    );
    const revealing = await timed(async () => {
      await Promise.all(reveals.map((reveal) => callClear(link, "ceremony.reveal", reveal)));
      await entryOf("result");
    });
    seconds.push((performance.now() - beganMs) / 1_000);
    stages.commit.push(committing);
    stages.reveal.push(revealing);
    const after = familySeconds(served.pid);
    used.push(after.own + after.children - before.own - before.children);
    const { purpose } = draft;
    peer.push((await timed(() => ceremonyKeyOf({ ceremonyId, purpose, seed, t1, participants: people }))) / 1_000);
  }
  const measured: Measured[] = [
    {
      what: "whole ceremony",
      unit: "ms",
      value: median(seconds) * 1_000,
      goal: { atMost: STAGE_MS },
      peer: { name: "combination alone", value: median(peer) * 1_000 },
    },
    { what: "all commit", unit: "ms", value: median(stages.commit) },
    { what: "all reveal, combine, store", unit: "ms", value: median(stages.reveal) },
    { what: "processor, server and enclave", unit: "ms", value: median(used) * 1_000 },
  ];
  report("F17", "ceremony", measured, [
    `${PEOPLE} participants at once, all four functions in turn, ${ROUNDS} ceremonies; the goal is the deadline of a stage`,
  ]);
});
