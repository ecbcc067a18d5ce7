import { describe, expect, test } from "bun:test";
import { isOpenLife, type KeyringLife } from "../../../src/protocol/keyring/requestlife.ts";
import { documentedTable } from "../../support/doctables.ts";
import { alphabet, newLife, type RealStep, realStep, seenAs, stateKey } from "./lifecase.ts";
import { type Model, type ModelEvent, modelStep, newModel, type Word } from "./lifemodel.ts";

const table = documentedTable("docs/protocol.md", ["transition", "event", "in", "becomes", "effects"]);

interface Row {
  readonly becomes: readonly string[];
  readonly effects: readonly string[];
}

const quoted = (cell = "") => [...cell.matchAll(/`([a-z_]+)`/g)].map((match) => match[1] ?? "");
const rows = new Map<string, Row>(
  table.map(([name = "", , , becomes, effects]) => [name, { becomes: quoted(becomes), effects: quoted(effects) }]),
);

const visited = new Set<string>();

/** What is wrong with one step, as text: cheaper than one `expect` for each of so many. */
function wrongIn(before: Model, e: ModelEvent, got: RealStep): string | null {
  const wanted = modelStep(before, e);
  const after = seenAs(got.life);
  for (const row of wanted.rows) visited.add(row);
  const agree =
    stateKey(after) === stateKey(wanted.model) &&
    got.effects.join(" ") === wanted.effects.join(" ") &&
    got.refused === wanted.refused;
  const effects = wanted.refused ? [] : wanted.rows.flatMap((name) => rows.get(name)?.effects ?? ["?"]);
  const becomes = rows.get(wanted.rows.at(-1) ?? "")?.becomes ?? ["?"];
  const unchanged = wanted.rows.length > 1 ? "expired" : before.status;
  const asWritten =
    effects.join(" ") === got.effects.map((one) => one.split(":")[0]).join(" ") &&
    (becomes.length > 0 ? becomes : [unchanged]).includes(wanted.refused ?? after.status);
  return agree && asWritten ? null : JSON.stringify({ before, e, wanted, after, got: [got.effects, got.refused] });
}

/** Every state that is reachable while a request is open, and from its end two events further: each with every event. */
function explore(parties: number, threshold: number, items: number, words?: readonly Word[]) {
  const events = alphabet(parties, items, words);
  const known = new Set([stateKey(newModel(parties, threshold, items))]);
  const open: { life: KeyringLife; after: number }[] = [{ life: newLife(parties, threshold, items), after: 0 }];
  const wrong: string[] = [];
  let steps = 0;
  for (let at = open.shift(); at !== undefined; at = open.shift()) {
    const before = seenAs(at.life);
    for (const e of events) {
      steps++;
      const got = realStep(at.life, e);
      const found = wrongIn(before, e, got);
      if (found !== null && wrong.length < 3) wrong.push(found);
      const after = isOpenLife(got.life) ? 0 : at.after + 1;
      const key = stateKey(seenAs(got.life));
      if (known.has(key) || after > 2) continue;
      known.add(key);
      open.push({ life: got.life, after });
    }
  }
  return { wrong, states: known.size, steps };
}

const CASES: readonly (readonly [number, number, number, (readonly Word[])?])[] = [
  [1, 1, 1],
  [2, 1, 1, ["1", "1b", "2"]],
  [2, 2, 1, ["1", "R", "Rb"]],
  [3, 2, 1, ["1", "2"]],
  [3, 3, 1, ["1", "R"]],
  [1, 1, 2, ["1", "2"]],
  [2, 2, 2, ["1"]],
];
const explored = new Map<number, ReturnType<typeof explore>>();
function exploredCase(index: number): ReturnType<typeof explore> {
  const [parties, threshold, items, words] = CASES[index] ?? [1, 1, 1];
  const found = explored.get(index) ?? explore(parties, threshold, items, words);
  explored.set(index, found);
  return found;
}

describe("every reachable state, every event", () => {
  test.each(CASES.map(([parties, threshold, items], index) => ({ parties, threshold, items, index })))(
    "$parties parties, threshold $threshold, items $items",
    ({ index, parties, items }) => {
      const { wrong, states, steps } = exploredCase(index);
      expect(wrong).toEqual([]);
      expect(states).toBeGreaterThan(100);
      expect(steps).toBe(states * alphabet(parties, items, CASES[index]?.[3]).length);
    },
    60_000,
  );

  test("go through each documented transition, and through no other", () => {
    const steps = CASES.reduce((sum, _, index) => sum + exploredCase(index).steps, 0);
    expect(steps).toBeGreaterThan(100_000);
    expect(rows.size).toBe(table.length);
    expect([...visited].toSorted()).toEqual([...rows.keys()].toSorted());
  }, 60_000);
});
