import { newId, type RequestId, type UserId } from "../../../src/ids.ts";
import { auditLink, type SaltedEntry } from "../../../src/protocol/audit.ts";
import { stateHash } from "../../../src/protocol/state.ts";
import { type Middle, random } from "../../support/harness.ts";
import { type Edits, editing } from "../../support/hostile.ts";
import { type Attack, type Attempt, attacks } from "../attack.ts";
import type { Stage } from "../stage.ts";

/** The account's log: cut, edited, chained anew, shown differently, filled with what nobody did. */

type Entries = readonly SaltedEntry[];

const VERIFY = ["audit", "verify"];

/** A read and a change by the desk that no verification has seen. */
async function something(stage: Stage): Promise<void> {
  await stage.desk.ok(["get", "note/a", "--fresh"]);
  await stage.store(stage.desk, "note/b", stage.fresh("value of b"));
  await stage.desk.ok(["get", "note/b", "--fresh"]);
}

const verifying =
  (edit: (entries: Entries) => Entries) =>
  async (stage: Stage): Promise<Attempt> => {
    await something(stage);
    const lie = editing(stage.world, {
      "audit.verify": (output) => ({ ...output, entries: edit(output.entries) }),
    });
    return { lie, command: VERIFY, ends: "integrity" };
  };

/** Links entries anew after an edit, as the server can: every salt is its own. */
function rechained(entries: Entries): Entries {
  const out: SaltedEntry[] = [];
  for (const { entry, salt } of entries) {
    const before = out.at(-1);
    const seq = (entries[0]?.entry.seq ?? 1) + out.length;
    out.push({ entry: { ...entry, seq, previous: before ? auditLink(before) : entry.previous }, salt });
  }
  return out;
}

const relinking = (edit: (entries: Entries) => Entries) => verifying((entries) => rechained(edit(entries)));

const at = (entries: Entries, action: string): number => {
  const found = entries.findIndex(({ entry }) => entry.action === action);
  if (found === -1) throw new Error(`there is no ${action} in the log`);
  return found;
};
const changed = (entries: Entries, index: number, edit: Partial<SaltedEntry["entry"]>): Entries =>
  entries.map((item, i) => (i === index ? { ...item, entry: { ...item.entry, ...edit } } : item));
const withoutRead = (e: Entries) => e.toSpliced(at(e, "secret.get"), 1);
const withoutChange = (e: Entries) => e.toSpliced(at(e, "secret.store"), 1);
const swapped = (e: Entries) => {
  const [first, second] = [e[0], e[1]];
  return first && second ? e.with(0, second).with(1, first) : e;
};

/** The log with one entry edited and everything after it linked anew, in entries and positions alike. */
function forkedLog(stage: Stage, edit: (entries: Entries) => Entries): Middle {
  const fork = async (userId: UserId) => {
    const filter = {
      after: 0,
      limit: 100_000,
      keyId: null,
      action: null,
      fromMs: null,
      untilMs: null,
      requestId: null,
    };
    return rechained(edit(await stage.world.server.store.transaction((tx) => tx.audit(userId, filter))));
  };
  return editing(
    stage.world,
    {
      "audit.verify": async (output, { userId, request }) => {
        const all = (await fork(userId)).filter(({ entry }) => entry.seq > request.after);
        return { entries: all.slice(0, Math.min(output.entries.length, request.limit)), more: output.more };
      },
    },
    async (head, userId) => {
      const item = (await fork(userId))[head.auditSeq - 1];
      return { ...head, auditLink: item ? auditLink(item) : head.auditLink };
    },
  );
}

/** Appends an invented entry to the log that is shown, positions included. */
const inventing =
  (make: (last: SaltedEntry) => Partial<SaltedEntry["entry"]>, more: (stage: Stage) => Edits = () => ({})) =>
  async (stage: Stage): Promise<Attempt> => {
    await something(stage);
    let made: SaltedEntry | undefined;
    const lie = editing(
      stage.world,
      {
        ...more(stage),
        "audit.verify": ({ entries }) => {
          const last = entries.at(-1);
          if (!last) return { entries, more: false };
          made ??= {
            entry: { ...last.entry, seq: last.entry.seq + 1, previous: auditLink(last), ...make(last) },
            salt: random(32),
          };
          return { entries: [...entries, made], more: false };
        },
      },
      (head) => (made ? { ...head, auditSeq: made.entry.seq, auditLink: auditLink(made) } : head),
    );
    return { lie, command: VERIFY, ends: "integrity" };
  };

const twice = (other: Partial<SaltedEntry["entry"]>) =>
  verifying((entries) => {
    const index = entries.findLastIndex(({ entry }) => entry.stateHash !== null);
    const item = entries[index];
    if (!item) throw new Error("there is no signed entry");
    const copy = { ...item, entry: { ...item.entry, ...other } };
    return rechained(entries.toSpliced(index + 1, 0, copy).slice(0, entries.length));
  });

const listing =
  (edit: (entries: Entries) => Entries, command: readonly string[] = ["audit", "list"]) =>
  async (stage: Stage): Promise<Attempt> => {
    await something(stage);
    const lie = editing(stage.world, { "audit.list": (output) => ({ ...output, entries: edit(output.entries) }) });
    return { lie, command, ends: "integrity" };
  };

export const LOG: readonly Attack[] = [
  ...attacks("strip or reorder audit entries", ["6.1", "6.2"], {
    "a log without its first new entry": verifying((e) => e.slice(1)),
    "a log without a read": verifying(withoutRead),
    "a log without a change": verifying(withoutChange),
    "a log without anything new": verifying(() => []),
    "a log without its end": verifying((e) => e.slice(0, 2)),
    "two entries in exchange": verifying(swapped),
    "an entry twice": verifying((e) => [...e.slice(0, 2), ...e.slice(1)]),
    "another account's entries": verifying((e) =>
      e.map((item) => ({ ...item, entry: { ...item.entry, userId: newId<UserId>(random) } })),
    ),
    "a shorter log, in every position too": async (stage) => {
      await something(stage);
      const lie = editing(stage.world, {}, (head) => ({ ...head, auditSeq: head.auditSeq - 4 }));
      return { lie, command: VERIFY, ends: "integrity" };
    },
    "entries of a list in another order": listing((e) => e.toReversed()),
    "entries of a list twice": listing((e) => e.flatMap((item) => [item, item])),
    "entries of a list beyond the log's end": listing((e) => changed(e, e.length - 1, { seq: 1_000_000 })),
    "entries that were not asked for": listing(
      (e) => changed(e, 0, { action: "secret.purge" }),
      ["audit", "list", "--action", "secret.get"],
    ),
    "an entry of a list called signed that is not": listing((e) =>
      changed(e, at(e, "secret.get"), { stateHash: random(32) }),
    ),
  }),
  ...attacks("rewrite an audit entry and chain anew", ["6.1", "6.2"], {
    "another time": relinking((e) => changed(e, 0, { atMs: 1 })),
    "another action": relinking((e) => changed(e, at(e, "secret.get"), { action: "secret.list" })),
    "another outcome": relinking((e) => changed(e, at(e, "secret.get"), { status: "denied" })),
    "another time, the links as they were": verifying((e) => changed(e, 0, { atMs: 1 })),
    "another salt": verifying((e) => e.map((item, i) => (i === 0 ? { ...item, salt: random(32) } : item))),
    "a read stripped": relinking(withoutRead),
    "a change stripped": relinking(withoutChange),
    "a read put in": relinking((e) => [...e.slice(0, 1), ...e]),
    "two entries changed round": relinking(swapped),
    "the last receipted entry": async (stage) => {
      let seen = 0;
      const listening = editing(stage.world, {}, (head) => {
        seen = head.auditSeq;
        return head;
      });
      await stage.world.during(listening, () => something(stage));
      const lie = editing(stage.world, {}, (head) => ({ ...head, auditSeq: seen, auditLink: random(32) }));
      return { lie, command: ["get", "note/b", "--fresh"], ends: "integrity" };
    },
  }),
  ...attacks("show different logs to two devices", ["6.2"], {
    "a log of one device's own, until it learns what the other signed": async (stage) => {
      const { desk, phone } = stage;
      await desk.ok(VERIFY);
      // something happens that the desk shall not learn of as it was
      await phone.ok(["get", "note/a", "--fresh"]);
      const { data } = await phone.ok(["audit", "list", "--action", "secret.get"]);
      const hidden: number = data.items.at(-1).seq;
      const lie = forkedLog(stage, (entries) =>
        entries.map((item) =>
          item.entry.seq === hidden ? { ...item, entry: { ...item.entry, action: "secret.list", keyId: null } } : item,
        ),
      );
      // the phone signs with its next change what it verified
      await phone.ok(VERIFY);
      await stage.store(phone, stage.fresh("signed"), "with the log's position");
      return { lie, command: VERIFY, ends: "integrity", once: true, evidence: true };
    },
  }),
  ...attacks("invent a mutating request", ["5.4", "6.2"], {
    "an entry of a change without any state": inventing(() => ({
      action: "secret.purge",
      status: "ok",
      stateHash: null,
      requestId: newId<RequestId>(random),
    })),
    "an entry of a change that names a state nobody signed": inventing(() => ({
      action: "secret.purge",
      status: "ok",
      stateHash: random(32),
    })),
    "an entry of a change with an unsigned state to it": async (stage) => {
      await something(stage);
      const account = await stage.world.server.store.transaction((tx) => tx.account(stage.userId));
      if (!account) throw new Error("there is no account");
      const requestId = newId<RequestId>(random);
      const { state } = account.state;
      const next = { ...state, revision: state.revision + 1, previous: stateHash(state), requestId };
      const forged = { ...account.state, state: next };
      return inventing(
        () => ({
          action: "secret.purge",
          status: "ok",
          stateHash: stateHash(next),
          requestId,
          bodyHash: next.requestHash,
        }),
        () => ({
          "state.sync": (output, { request }) =>
            request.what === "states" ? { ...output, states: [...output.states, forged] } : output,
        }),
      )(stage);
    },
    "a second entry of a change, under another request": twice({ requestId: newId<RequestId>(random) }),
    "a second entry of a change, with another body": twice({ bodyHash: random(32) }),
    "a second entry of a change, as another action": twice({ action: "secret.purge" }),
    "a second entry of a change": twice({}),
  }),
];
