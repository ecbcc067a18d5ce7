import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { rmSync } from "node:fs";
import { withCeremony } from "../../../src/client/ceremony/books.ts";
import { CEREMONY_MAX } from "../../../src/client/ceremony/held.ts";
import { createCeremonyClient } from "../../../src/client/ceremony/index.ts";
import { changeHeld } from "../../../src/client/federation/keeping.ts";
import { Fault } from "../../../src/errors.ts";
import { rejected } from "../../support/hostile.ts";
import { joinWith, type Keeper, type Person, untilOver, type World, wish, world } from "./world.ts";

/* Answers that are lost, servers that are away, vaults that are full. */

setDefaultTimeout(60_000);

let made: World;
let at: Keeper;
let organiser: Person;
let ann: Person;
let ben: Person;
let turn = 0;

beforeAll(async () => {
  made = world();
  at = await made.keeper();
  organiser = await made.account("keeper", at);
  [ann, ben] = [await made.local("ann"), await made.local("ben")];
});
afterEach(() => {
  at.middle = null;
});
afterAll(() => made.end());

async function opened(change: Parameters<typeof wish>[1] = {}) {
  const name = `run${++turn}`;
  const { info, invites } = await organiser.client.ceremonyOpen(wish(["ann", "ben"], { name, ...change }));
  const looked = { ceremony: info.ceremonyId };
  return { name, info, invites, looked };
}

const heldOf = ({ open }: Person, id: string) =>
  open.box.model.held.ceremonies.find(({ ceremonyId }) => ceremonyId === id);

/** A process that knows nothing but the file. */
const fresh = (who: Person): Person => who.again();

describe("answers that are lost, and processes that are killed", () => {
  const lose = (operation: string, arrives: boolean) => {
    let lost = false;
    at.middle = async (name, body, forward) => {
      if (name !== operation || lost) return forward(name, body);
      lost = true;
      if (arrives) await forward(name, body);
      throw new Fault("outcome_unknown", "the answer was lost");
    };
  };

  test("a commitment and a reveal are sent again with the same bytes", async () => {
    for (const arrives of [true, false]) {
      const { info, invites, looked } = await opened();
      lose("ceremony.join", arrives);
      await rejected(ann.client.ceremonyJoin(joinWith(invites[0])), "outcome_unknown");
      const drawn = heldOf(ann, info.ceremonyId)?.own;
      expect(drawn).toMatchObject({ joinedSeq: null });
      at.middle = null;
      const killed = fresh(ann);
      await killed.client.ceremonyAdvance(looked);
      expect(heldOf(killed, info.ceremonyId)?.own).toMatchObject({ opening: drawn?.opening, joinedSeq: 1 });
      await ben.client.ceremonyJoin(joinWith(invites[1]));
      lose("ceremony.reveal", arrives);
      await rejected(killed.client.ceremonyAdvance(looked), "outcome_unknown");
      const sealed = heldOf(killed, info.ceremonyId)?.own?.reveal?.sealed;
      expect(sealed).toBeDefined();
      at.middle = null;
      const again = fresh(ann);
      expect(await untilOver([again, ben], info.ceremonyId)).toMatchObject({ status: "stored" });
      expect(heldOf(again, info.ceremonyId)?.own?.reveal?.sealed).toEqual(sealed as Uint8Array);
    }
  });

  test("of two that use one invite at the same moment the later one is told what that means", async () => {
    const { info, invites, looked } = await opened();
    let joined = false;
    at.middle = async (name, body, forward) => {
      if (name === "ceremony.join" && !joined) {
        joined = true;
        await ben.client.ceremonyJoin(joinWith(invites[0]));
      }
      return forward(name, body);
    };
    const fault = await rejected(ann.client.ceremonyJoin(joinWith(invites[0])), "conflict");
    expect(fault.message).toContain("already taken");
    expect(fault.hint).toContain("tell the organiser");
    at.middle = null;
    // what it had drawn stays unused, and it says the same again
    expect((await ann.client.ceremony(looked)).seats.map(({ own }) => own)).toEqual([false, false]);
    expect((await rejected(ann.client.ceremonyJoin(joinWith(invites[0])), "conflict")).hint).toContain("organiser");
    expect((await ben.client.ceremonyAdvance(looked)).seats.map(({ own }) => own)).toEqual([true, false]);
    await organiser.client.ceremonyClose({ ceremony: info.ceremonyId, abort: true });
  });

  test("a vault that cannot be written sends nothing", async () => {
    const { invites } = await opened();
    const sent: string[] = [];
    at.middle = (name, body, forward) => {
      sent.push(name);
      return forward(name, body);
    };
    const carl = await made.local("carl");
    await carl.client.ceremonyLook({ invite: invites[0]?.invite ?? "" });
    rmSync(carl.open.box.path);
    await rejected(carl.client.ceremonyJoin(joinWith(invites[0])), "not_found");
    expect(sent).not.toContain("ceremony.join");
  });

  test("a draft whose answer was lost is opened once; a refused one is forgotten", async () => {
    const { session } = organiser.open;
    if (!session) throw new Error("no session");
    let lost = false;
    const drafts: unknown[] = [];
    const shaky: Person["open"] = {
      ...organiser.open,
      session: {
        ...session,
        away: () => false,
        async call(operation, input, requestId) {
          const answer = await session.call(operation, input, requestId);
          if (operation !== "ceremony.open") return answer;
          drafts.push(input);
          if (lost) return answer;
          lost = true;
          throw new Fault("outcome_unknown", "the answer was lost");
        },
      },
    };
    const { calls } = createCeremonyClient(shaky, { url: at.url, pin: at.pin });
    const asked = wish(["ann", "ben"], { name: "once" });
    await rejected(calls.ceremonyOpen(asked), "outcome_unknown");
    const { invites } = await calls.ceremonyOpen(asked);
    expect(drafts[1]).toEqual(drafts[0] as never);
    const drafted = () => organiser.open.box.model.held.ceremonyDrafts.map(({ draft }) => draft.name);
    expect(drafted()).not.toContain("once");
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    await rejected(calls.ceremonyOpen(wish(["ann"], { name: "alone" })), "bad_input");
    await rejected(calls.ceremonyOpen(wish(["ann", "ben"], { name: "once", again: "once" })), "conflict");
    expect(drafted()).not.toContain("alone");
  });

  test("a server that is away: what was seen last is told", async () => {
    const { info, invites, looked } = await opened();
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    at.middle = async () => {
      throw new Fault("unreachable", "nobody answers");
    };
    const { client, notices } = fresh(ann);
    expect(await client.ceremony(looked)).toMatchObject({ seats: [{ state: "committed", own: true }, {}] });
    expect(notices.at(-1)).toContain("away");
    await rejected(client.ceremonyAdvance({ ceremony: info.ceremonyId }), "unreachable");
    // in a list one server's trouble does not hide the others; asked for by itself it is told
    at.middle = (name, body, forward) =>
      forward(
        name === "ceremony.get" ? "ceremony.keys" : name,
        name === "ceremony.get" ? new Uint8Array([123, 125]) : body,
      );
    const { client: listing, notices: said } = fresh(ann);
    const all = await listing.ceremonies();
    expect(all.find((one) => one.ceremonyId === info.ceremonyId)).toMatchObject({ seats: [{ own: true }, {}] });
    expect(said.some((line) => line.includes("seen last"))).toBe(true);
    await rejected(fresh(ann).client.ceremony(looked), "integrity");
  });
});

describe("words that no ceremony can have", () => {
  const LONG = "x".repeat(257);
  const cases: readonly [string, Parameters<typeof wish>[1], string][] = [
    ["name", { name: "Door Code" }, '"Door Code" cannot be the name'],
    ["purpose", { purpose: "" }, "purpose"],
    ["line", { purpose: "two\nlines" }, "purpose"],
    ["length", { purpose: LONG }, "purpose"],
    ["seat", { seats: ["", "ben"].map((name) => ({ name, account: null })) }, "name of a participant"],
    ["account", { seats: ["a\nb", "ben"].map((name) => ({ name, account: name })) }, "name of an account"],
    [
      "label",
      { output: { kind: "hotp", algorithm: "SHA1", digits: 6, issuer: LONG, label: "x" } },
      "makes no such hotp",
    ],
  ];
  test.each(cases)("are refused: %s", async (_, change, text) => {
    const fault = await rejected(organiser.client.ceremonyOpen(wish(["ann", "ben"], change)), "bad_input");
    expect(fault.message).toContain(text);
    expect(organiser.open.box.model.held.ceremonyDrafts).toEqual([]);
  });

  test("and what the vault cannot hold hinders no later change", async () => {
    const before = organiser.open.box.model.held;
    const [one] = before.ceremonies;
    if (!one) throw new Error("no ceremony");
    const broken = { ...one, url: "x".repeat(100_000) };
    await rejected(
      changeHeld(organiser.open, (held) => ({ ...held, ceremonies: [broken] })),
      "internal",
    );
    expect(organiser.open.box.model.held).toBe(before);
    const { info } = await opened();
    expect(info.status).toBe("open");
  });
});

test("of too many ceremonies the oldest finished one goes, and none that runs", async () => {
  const { held } = ann.open.box.model;
  const [one] = held.ceremonies;
  if (!one) throw new Error("no ceremony");
  const id = (n: number) => n.toString(16).padStart(64, "0") as never;
  const running = Array.from({ length: CEREMONY_MAX.ceremonies }, (_, n) => ({
    ...one,
    ceremonyId: id(n),
    seen: { ...one.seen, status: "reveal" as const },
  }));
  const full = { ...held, ceremonies: running };
  expect(() => withCeremony(full, { ...one, ceremonyId: id(999) })).toThrow("not over");
  const over = running.map((each, n) =>
    n === 7 || n === 9 ? { ...each, seen: { ...each.seen, status: "stored" as const } } : each,
  );
  const after = withCeremony({ ...held, ceremonies: over }, { ...one, ceremonyId: id(999) }).ceremonies;
  expect(after).toHaveLength(CEREMONY_MAX.ceremonies);
  expect(after.map(({ ceremonyId }) => ceremonyId)).not.toContain(id(7));
  expect(after.map(({ ceremonyId }) => ceremonyId)).toContain(id(9));
});
