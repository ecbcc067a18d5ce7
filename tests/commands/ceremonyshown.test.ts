import { expect, test } from "bun:test";
import { ceremonyLines, collectText, rosterLines } from "../../src/commands/ceremonyshown.ts";
import type { OutputSpec, StorePolicy } from "../../src/protocol/ceremony/model.ts";
import { infoOf } from "./ceremonyhome.ts";

const TOTP: OutputSpec = { kind: "totp", algorithm: "SHA1", digits: 6, period: 30, issuer: "", label: "door" };
const BYTES: OutputSpec = { kind: "bytes", length: 32 };
const text = (output: OutputSpec, collect: StorePolicy["collect"], quorum: number) =>
  collectText({ output, policy: { collect, quorum } });

test("who may have the value is told as the server holds to it", () => {
  expect(text(BYTES, "nobody", 0)).toBe("never: the value stays in the server's key store");
  expect(text(BYTES, "organiser", 0)).toBe("to the organiser, sealed");
  expect(text(BYTES, "participants", 2)).toBe("to participants, sealed, when 2 participants agree");
});

test("a one-time password is not said to stay where its issuer may give it away", () => {
  for (const collect of ["nobody", "organiser", "participants"] as const)
    expect(text(TOTP, collect, 0)).toContain("codes, or the whole key, to whom its organiser lets have them");
  expect(text(TOTP, "participants", 2)).toBe(
    "to participants, sealed, when 2 participants agree; codes to whom its organiser lets have them",
  );
});

test("the roster is in the order of the seats, however it was told", () => {
  const info = infoOf();
  const seats = Array.from({ length: 40 }, (_, at) => ({ ...info.seats[0], index: 40 - at, name: `p${40 - at}` }));
  const numbers = (of: typeof seats) =>
    rosterLines({ ...info, seats: of as never })
      .flatMap((line) => /^ {2}. +(\d+)/.exec(line)?.[1] ?? [])
      .map(Number);
  expect(numbers(seats.slice(-3))).toEqual([1, 2, 3]);
  expect(numbers(seats)).toEqual(Array.from({ length: 16 }, (_, at) => at + 1));
});

test("of many who take part the roster has first oneself and those for whom is waited; a status has everyone", () => {
  const info = infoOf({ status: "stored", until: null });
  const seatsOf = (state: "revealed" | "withheld") =>
    Array.from({ length: 20 }, (_, at) => ({
      ...{ index: at + 1, name: `p${at + 1}`, function: null, account: null, own: at === 18 },
      state: at === 17 ? state : ("revealed" as const),
    }));
  const numbers = (text: string) => [...text.matchAll(/^ {2}. +(\d+) {2}p\d/gm)].map(([, number]) => Number(number));
  const first = Array.from({ length: 14 }, (_, at) => at + 1);
  const lines = (state: "revealed" | "withheld") => rosterLines({ ...info, seats: seatsOf(state) });
  expect(numbers(lines("withheld").join("\n"))).toEqual([...first, 18, 19]);
  expect(numbers(lines("revealed").join("\n"))).toEqual([...first, 15, 19]);
  expect(lines("revealed").at(-1)).toBe("      and 4 more, 20 of all are done");
  const all = ceremonyLines({ ...info, seats: seatsOf("revealed") }, Date.now());
  expect(numbers(all)).toEqual(Array.from({ length: 20 }, (_, at) => at + 1));
  expect(all).not.toContain("more,");
});

test("how long each stage lasts is shown", () => {
  const info = infoOf({ commitMs: 7_200_000, revealMs: 90_000 });
  expect(ceremonyLines(info, Date.now())).toMatch(/stages +2 h to commit, 2 min to reveal/);
});
