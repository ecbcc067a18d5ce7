import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { decodeModel, encodeModel } from "../../../src/client/model.ts";
import { Fault } from "../../../src/errors.ts";
import { rejected } from "../../support/hostile.ts";
import { joinWith, type Person, untilOver, type World, wish, world } from "./world.ts";

/* Which of several ceremonies of one name is meant, where a seat of another run waits for the account. */

// vaults are written and flushed at each step
setDefaultTimeout(60_000);

const worlds: World[] = [];
afterEach(async () => {
  for (const one of worlds.splice(0)) await one.end();
});

const SEATS = [
  { name: "ben", account: "ben" },
  { name: "cleo", account: null },
] as const;
const OWN_SEAT = { ...joinWith(undefined), invite: null, ceremony: "door" } as const;

/** Ben has committed to a ceremony of ada's, "door", in which an invited one is missing. */
async function committed() {
  const made = world();
  worlds.push(made);
  const at = await made.keeper();
  const [ada, ben] = [await made.account("ada", at), await made.account("ben", at)];
  const { info } = await ada.client.ceremonyOpen(wish([], { seats: SEATS }));
  await ben.client.ceremonyJoin(OWN_SEAT);
  const repeat = async () => {
    await ada.client.ceremonyClose({ ceremony: info.ceremonyId, abort: true });
    return ada.client.ceremonyOpen(wish([], { seats: SEATS, again: "door" }));
  };
  return { made, at, ada, ben, first: info.ceremonyId, repeat };
}

describe("a name that several ceremonies have", () => {
  test("of a repeated run is the new one, in which the account's seat is taken by it; an id still means the old one", async () => {
    const { ben, first, repeat } = await committed();
    const { info } = await repeat();
    // what this vault has seen last is that the old run goes on
    expect(await ben.client.ceremony({ ceremony: "door" })).toMatchObject({
      ceremonyId: info.ceremonyId,
      status: "open",
    });
    expect(await ben.client.ceremonyJoin(OWN_SEAT)).toMatchObject({
      ceremonyId: info.ceremonyId,
      seats: [{ name: "ben", state: "committed", own: true }, { state: "waiting" }],
    });
    expect((await ben.client.ceremonyAdvance({ ceremony: "door" })).ceremonyId).toBe(info.ceremonyId);
    expect(await ben.client.ceremony({ ceremony: first })).toMatchObject({ ceremonyId: first, status: "aborted" });
  });

  test("means the run that this vault is in once the other one is over", async () => {
    const { ada, ben, first, repeat } = await committed();
    const { info } = await repeat();
    await ada.client.ceremonyClose({ ceremony: info.ceremonyId, abort: true });
    expect((await ben.client.ceremony({ ceremony: "door" })).ceremonyId).toBe(first);
  });

  test("is not guessed where another organiser has given it to a running one, too", async () => {
    const { made, at, ben, first } = await committed();
    const eve = await made.account("eve", at);
    const { info } = await eve.client.ceremonyOpen(wish([], { seats: SEATS }));
    const fault = await rejected(ben.client.ceremony({ ceremony: "door" }), "ambiguous");
    for (const id of [first, info.ceremonyId]) expect(fault.why).toContain(id);
    await rejected(ben.client.ceremonyJoin(OWN_SEAT), "ambiguous");
    // both are reached by their ids
    expect((await ben.client.ceremonyAdvance({ ceremony: first })).status).toBe("commit");
    const seat = { ...OWN_SEAT, ceremony: info.ceremonyId };
    expect((await ben.client.ceremonyJoin(seat)).ceremonyId).toBe(info.ceremonyId);
  });

  test("is not guessed between two seats that wait, either", async () => {
    const { made, at } = await committed();
    const [dan, eve] = [await made.account("dan", at), await made.account("eve", at)];
    const seats = [{ name: "dan", account: "dan" }, SEATS[1]];
    await eve.client.ceremonyOpen(wish([], { seats, name: "gate" }));
    const { info } = await eve.client.ceremonyOpen(wish([], { seats, name: "gate", purpose: "another" }));
    const fault = await rejected(dan.client.ceremony({ ceremony: "gate" }), "ambiguous");
    expect(fault.why).toContain(info.ceremonyId);
  });

  test("a server that lists nothing hinders nobody in what the vault has", async () => {
    const { at, ben, first } = await committed();
    at.middle = async (operation, body, forward) => {
      if (operation === "ceremony.list") throw new Fault("unreachable", "the server is away");
      return forward(operation, body);
    };
    expect((await ben.client.ceremony({ ceremony: "door" })).ceremonyId).toBe(first);
    expect(ben.notices.join("\n")).toContain("are not known");
  });

  test("a server that is away: as it was seen last, but for who insists on it as it is", async () => {
    const { at, ben, first } = await committed();
    at.middle = async (operation, body, forward) => {
      if (operation === "ceremony.get") throw new Fault("unreachable", "the server is away");
      return forward(operation, body);
    };
    expect(await ben.client.ceremony({ ceremony: first })).toMatchObject({ status: "commit" });
    expect(ben.notices.join("\n")).toContain("as it stood when it was seen last");
    await rejected(ben.client.ceremony({ ceremony: first, fresh: true }), "unreachable");
  });
});

describe("what is to be done next", () => {
  /** A ceremony of two vaults that is over. */
  async function over(change: Parameters<typeof wish>[1]) {
    const made = world();
    worlds.push(made);
    const at = await made.keeper();
    const ada = await made.account("ada", at);
    const people = [await made.local("ben"), await made.local("cleo")] as const;
    const { invites } = await ada.client.ceremonyOpen(wish(["ben", "cleo"], change));
    for (const [i, { client }] of people.entries()) await client.ceremonyJoin(joinWith(invites[i], i));
    await untilOver(people, "door");
    return { at, ada, ben: people[0] };
  }
  const nextOf = async ({ client }: Person) => (await client.ceremony({ ceremony: "door" })).next;

  test("is to collect the value until it was collected, whatever was asked before", async () => {
    const { at, ada } = await over({});
    expect(await nextOf(ada)).toBe("collect the value");
    at.middle = async (operation, body, forward) => {
      const reply = await forward(operation, body);
      if (operation === "ceremony.collect") throw new Fault("outcome_unknown", "the answer was lost");
      return reply;
    };
    await rejected(ada.client.ceremonyCollect({ ceremony: "door" }), "outcome_unknown");
    at.middle = null;
    expect(await nextOf(ada)).toBe("collect the value");
    const { value } = await ada.client.ceremonyCollect({ ceremony: "door" });
    expect(await nextOf(ada)).toBe("");
    expect((await ada.again().client.ceremonies()).map(({ next }) => next)).toEqual([""]);
    // it may be had again
    expect((await ada.client.ceremonyCollect({ ceremony: "door" })).value).toEqual(value);
  });

  test("is to collect the own key of a wallet until it was collected", async () => {
    const output = { kind: "multisig", threshold: 1, network: "regtest" } as const;
    const { ben } = await over({ output, policy: { collect: "nobody", quorum: 0 } });
    expect(await nextOf(ben)).toBe("collect your own key of the wallet");
    await ben.client.ceremonyCollect({ ceremony: "door" });
    expect(await nextOf(ben)).toBe("");
  });

  test("a vault in which that was not noted yet is read, and nothing of it is lost", async () => {
    const { ben } = await over({});
    const { model } = ben.open.box;
    const text = JSON.stringify(JSON.parse(new TextDecoder().decode(encodeModel(model))), (name, value) =>
      name === "collectedAtMs" ? undefined : value,
    );
    expect(text).not.toContain("collectedAtMs");
    expect(decodeModel(new TextEncoder().encode(text)).held).toEqual(model.held);
  });
});
