import { describe, expect, test } from "bun:test";
import { beginCeremony } from "../../../src/protocol/federation/ceremony.ts";
import { type CeremonyState, FIRST_STATE, stepCeremony } from "../../../src/protocol/federation/ceremonystate.ts";
import type { Dealing } from "../../../src/protocol/federation/dealing.ts";
import { beginDkg } from "../../../src/protocol/federation/dkg.ts";
import { groupOf } from "../../../src/protocol/federation/groups.ts";
import { planCeremony } from "../../../src/protocol/federation/plan.ts";
import { beginResharing } from "../../../src/protocol/federation/resharing.ts";
import { beginReceiving } from "../../../src/protocol/federation/sharing.ts";
import {
  ceremonyWorld,
  confirmedOf,
  generateTerms,
  importTerms,
  reshareTerms,
  roundOf,
  runCeremony,
  sharesOf,
} from "../../support/ceremonyworld.ts";

describe("the state machine", () => {
  test("is pure: the same state and message give the same again, and nothing given is changed", async () => {
    const world = ceremonyWorld([1, 2], 2);
    const terms = generateTerms(world, "p256", [1, 2]);
    const { said } = await runCeremony(world, terms);
    const plan = planCeremony(terms);
    let state: CeremonyState = FIRST_STATE;
    const mine = said.filter((m) => m.message.to !== 2 && roundOf(m) !== "confirm");
    const seen: string[] = [];
    for (const message of mine) {
      const before = structuredClone(state);
      const [a, b] = [0, 1].map(() => stepCeremony(plan, 1, state, { kind: "heard", message }));
      if (!a || !b) throw new Error("no transition");
      expect(a).toEqual(b);
      expect(state).toEqual(before);
      state = a.state;
      seen.push(...a.effects.map((e) => e.kind));
      if (a.effects.some((e) => e.kind === "open"))
        state = stepCeremony(plan, 1, state, { kind: "opened", from: 2, fits: true }).state;
    }
    expect(FIRST_STATE).toMatchObject({ at: "committing" });
    expect(seen.filter((kind) => kind === "deal").length).toBe(1);
    expect(seen.filter((kind) => kind === "finish").length).toBe(1);
  });

  test("an effect that fails ends it without a name, and an event that is out of place changes nothing", () => {
    const world = ceremonyWorld([1, 2], 2);
    const plan = planCeremony(generateTerms(world, "p256", [1, 2]));
    expect(stepCeremony(plan, 1, FIRST_STATE, { kind: "broken" })).toMatchObject({
      state: { at: "failed", culprits: [] },
      effects: [{ kind: "wipe" }],
    });
    const early = stepCeremony(plan, 1, FIRST_STATE, { kind: "opened", from: 2, fits: false });
    expect(early).toEqual({ state: FIRST_STATE, effects: [] });
  });
});

describe("secrets", () => {
  test("after abort a ceremony says nothing more, whatever it hears", async () => {
    const world = ceremonyWorld([1, 2], 2);
    const terms = generateTerms(world, "p256", [1, 2]);
    const [one, two] = await Promise.all(
      [1, 2].map((self) =>
        beginCeremony({
          ...terms,
          self,
          signer: world.signers.get(self) ?? world.requester,
          beforeShare: null,
          contribution: world.random.bytes(32),
          random: (n) => world.random.bytes(n),
        }),
      ),
    );
    if (!one || !two) throw new Error("no ceremony");
    const answered = await two.ceremony.receive(one.step.messages);
    one.ceremony.abort();
    one.ceremony.abort();
    expect(await one.ceremony.receive(answered.messages)).toEqual({ messages: one.step.messages, outcome: null });
  });

  test("two calls at once are taken one after the other", async () => {
    const world = ceremonyWorld([1, 2], 2);
    const terms = generateTerms(world, "p256", [1, 2]);
    const { said } = await runCeremony(world, terms);
    const run = await runCeremony(world, { ...terms, order: { ...terms.order, attempt: 2 } });
    const one = run.ceremonies.get(1);
    const steps = await Promise.all([one?.receive(said), one?.receive(run.said), one?.receive([])]);
    for (const step of steps) expect(step?.outcome).toMatchObject({ result: "confirmed" });
  });

  test("dealt shares are zero after wiping: of a generation, an import, a resharing", async () => {
    const world = ceremonyWorld([1, 2, 3], 2);
    const random = (n: number) => world.random.bytes(n);
    const group = groupOf("p256");
    const terms = generateTerms(world, "p256", [1, 2, 3]);
    const run = await runCeremony(world, terms);
    const certificate = confirmedOf(run).get(1)?.certificate;
    if (!certificate) throw new Error("no certificate");

    const commits = run.said.flatMap(({ message: { payload, from } }) =>
      payload.round === "commit" && from !== 1 ? [{ from, ...payload }] : [],
    );
    const next = reshareTerms(world, certificate, { threshold: 2, holders: [1, 2, 3] }, [1, 2, 3]);
    const dealings: readonly Dealing[] = [
      beginDkg(planCeremony(terms), 1, random),
      beginResharing(planCeremony(next), 1, sharesOf(run).get(1) ?? null, random),
    ];
    for (const dealing of dealings) {
      const shares = [...dealing.deal(commits).values()];
      expect(shares.length).toBe(2);
      for (const share of shares) expect(share.some((byte) => byte !== 0)).toBe(true);
      dealing.wipe();
      for (const share of shares) expect(share).toEqual(new Uint8Array(32));
    }

    const secret = group.encodeScalar(group.reduceScalar(random(64)));
    const imported = importTerms(world, "p256", 2, [1, 2, 3], secret);
    const given = imported.shares.get(1) ?? new Uint8Array(32);
    const receiving = beginReceiving(planCeremony(imported.terms), 1, given);
    receiving.wipe();
    expect(receiving.finish({ commits: [], shares: new Map() }).share).toEqual(new Uint8Array(32));
    expect(given.some((byte) => byte !== 0)).toBe(true);
  });
});
