import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ZERO_HASH_BYTES } from "../../src/crypto/bytes.ts";
import { canon } from "../../src/crypto/canon.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import type { UserId } from "../../src/ids.ts";
import {
  type AuditEntry,
  type AuditHead,
  auditLink,
  auditPseudonym,
  continueAudit,
  type SaltedEntry,
} from "../../src/protocol/audit.ts";
import { anyId, bent, bentFields, bytesOf, saltedArbitrary } from "../support/arbitraries.ts";

const START: AuditHead = { seq: 0, link: ZERO_HASH_BYTES };
const owner = "0a".repeat(16) as UserId;

/** Gives entries their place: seq, account and previous link. */
function chain(drawn: readonly SaltedEntry[], from = START, userId = owner): SaltedEntry[] {
  let head = from;
  return drawn.map(({ entry, salt }) => {
    const item = { entry: { ...entry, seq: head.seq + 1, userId, previous: head.link }, salt };
    head = { seq: item.entry.seq, link: auditLink(item) };
    return item;
  });
}

const chainArbitrary = fc.array(saltedArbitrary, { minLength: 1, maxLength: 6 }).map((drawn) => chain(drawn));

function headOf(entries: readonly SaltedEntry[], from = START): AuditHead {
  const checked = continueAudit(from, owner, entries);
  if (!checked.ok) throw new Error(`a good chain broke: ${checked.broken.reason}`);
  return checked.head;
}

/** True when the entries are not taken for a way to `head`: they break, or end elsewhere. */
function detected(entries: readonly SaltedEntry[], head: AuditHead): boolean {
  const checked = continueAudit(START, owner, entries);
  return !checked.ok || checked.head.seq !== head.seq || Buffer.compare(checked.head.link, head.link) !== 0;
}

describe("auditLink", () => {
  test("depends on every field of the entry and on the salt", () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(saltedArbitrary, (item) => {
        const link = auditLink(item).toHex();
        for (const { field, value } of bentFields(item.entry)) {
          seen.add(field);
          expect({ field, same: auditLink({ ...item, entry: value }).toHex() === link }).toEqual({
            field,
            same: false,
          });
        }
        for (const { value } of bentFields({ salt: item.salt })) {
          expect(auditLink({ ...item, salt: value.salt }).toHex()).not.toBe(link);
        }
      }),
    );
    expect(seen.size).toBe(12);
  });

  test("tells the three ids apart, and null from all of them", () => {
    fc.assert(
      fc.property(saltedArbitrary, anyId(), (item, id) => {
        const blank = { ...item.entry, keyId: null, requestId: null, session: null };
        const links = [blank, { ...blank, keyId: id }, { ...blank, requestId: id }, { ...blank, session: id }].map(
          (entry) => auditLink({ ...item, entry: entry as AuditEntry }).toHex(),
        );
        expect(new Set(links).size).toBe(4);
      }),
    );
  });

  test("is SHA-256 of salt ‖ the documented encoding", () => {
    const [item] = fc.sample(saltedArbitrary, { numRuns: 1, seed: 3 });
    if (!item) throw new Error("no sample");
    const e = item.entry;
    const encoded = canon(
      "keyhold/v1/audit-entry",
      ...[e.seq, e.userId, e.atMs, e.action, e.status, e.keyId, e.requestId, e.session, e.bodyHash, e.stateHash],
      ...[e.count, e.previous],
    );
    expect(auditLink(item)).toEqual(sha256(Uint8Array.of(...item.salt, ...encoded)));
  });
});

describe("continueAudit", () => {
  test("follows a good chain, whole or in pages, to the same head", () => {
    fc.assert(
      fc.property(chainArbitrary, fc.nat(), (entries, cut) => {
        const head = headOf(entries);
        expect(head.seq).toBe(entries.length);
        const at = cut % (entries.length + 1);
        expect(headOf(entries.slice(at), headOf(entries.slice(0, at)))).toEqual(head);
      }),
    );
  });

  test("nothing leaves the head where it is", () => {
    fc.assert(
      fc.property(fc.nat(), bytesOf(32), (seq, link) => {
        expect(continueAudit({ seq, link }, owner, [])).toEqual({ ok: true, head: { seq, link } });
      }),
    );
  });

  test("any edit of any field of any entry is detected", () => {
    fc.assert(
      fc.property(chainArbitrary, (entries) => {
        const head = headOf(entries);
        entries.forEach((item, i) => {
          for (const { field, value } of bentFields(item.entry)) {
            const edited = entries.with(i, { ...item, entry: value });
            expect({ i, field, detected: detected(edited, head) }).toEqual({ i, field, detected: true });
          }
          for (const salt of bent(item.salt) as Uint8Array[]) {
            expect(detected(entries.with(i, { ...item, salt }), head)).toBe(true);
          }
        });
      }),
      { numRuns: 30 },
    );
  });

  test("any cut, at either end or within, is detected", () => {
    fc.assert(
      fc.property(chainArbitrary, fc.nat(), fc.nat(), (entries, a, b) => {
        const head = headOf(entries);
        const from = a % entries.length;
        const count = 1 + (b % (entries.length - from));
        expect(detected(entries.toSpliced(from, count), head)).toBe(true);
      }),
    );
  });

  test("any exchange of two entries is detected", () => {
    fc.assert(
      fc.property(fc.array(saltedArbitrary, { minLength: 2, maxLength: 6 }), fc.nat(), fc.nat(), (drawn, a, b) => {
        const entries = chain(drawn);
        const i = a % entries.length;
        const j = b % entries.length;
        fc.pre(i !== j);
        const [x, y] = [entries[i], entries[j]];
        if (!x || !y) throw new Error("out of range");
        const head = headOf(entries);
        expect(detected(entries.with(i, y).with(j, x), head)).toBe(true);
        // renumbered to hide it
        const hidden = (item: SaltedEntry, seq: number): SaltedEntry => ({ ...item, entry: { ...item.entry, seq } });
        expect(detected(entries.with(i, hidden(y, i + 1)).with(j, hidden(x, j + 1)), head)).toBe(true);
      }),
    );
  });

  test("any entry put in or repeated is detected, also when the rest is renumbered and the place is linked", () => {
    fc.assert(
      fc.property(chainArbitrary, saltedArbitrary, fc.nat(), (entries, extra, at) => {
        const head = headOf(entries);
        const i = at % (entries.length + 1);
        const before = headOf(entries.slice(0, i));
        const [linked] = chain([extra], before);
        if (!linked) throw new Error("nothing linked");
        const renumbered = entries.slice(i).map((item) => ({
          ...item,
          entry: { ...item.entry, seq: item.entry.seq + 1 },
        }));
        expect(detected(entries.toSpliced(i, 0, extra), head)).toBe(true);
        expect(detected(entries.toSpliced(i, 0, linked), head)).toBe(true);
        expect(detected([...entries.slice(0, i), linked, ...renumbered], head)).toBe(true);
        const again = entries[i % entries.length];
        if (again) expect(detected(entries.toSpliced(i, 0, again), head)).toBe(true);
      }),
    );
  });

  test("a fork ends in another head, and does not continue from the true one", () => {
    fc.assert(
      fc.property(chainArbitrary, saltedArbitrary, saltedArbitrary, (entries, a, b) => {
        const base = headOf(entries);
        const [left] = chain([a], base);
        const [right, next] = chain([b, a], base);
        if (!left || !right || !next) throw new Error("nothing linked");
        fc.pre(Buffer.compare(auditLink(left), auditLink(right)) !== 0);
        expect(headOf([left], base).link).not.toEqual(headOf([right], base).link);
        expect(continueAudit(headOf([left], base), owner, [next])).toEqual({
          ok: false,
          broken: { seq: next.entry.seq, reason: "link" },
        });
      }),
    );
  });

  test("says where and why it breaks", () => {
    const [one, two, three] = chain(fc.sample(saltedArbitrary, { numRuns: 3, seed: 11 }));
    if (!one || !two || !three) throw new Error("no sample");
    const run = (...entries: SaltedEntry[]) => continueAudit(START, owner, entries);
    expect(run(one, three)).toEqual({ ok: false, broken: { seq: 2, reason: "gap" } });
    expect(run(two)).toEqual({ ok: false, broken: { seq: 1, reason: "gap" } });
    expect(run(one, one)).toEqual({ ok: false, broken: { seq: 2, reason: "gap" } });
    expect(run({ ...one, salt: new Uint8Array(32) }, two)).toEqual({ ok: false, broken: { seq: 2, reason: "link" } });
    const stranger = "0b".repeat(16) as UserId;
    expect(run(one, { ...two, entry: { ...two.entry, userId: stranger } }, three)).toEqual({
      ok: false,
      broken: { seq: 2, reason: "account" },
    });
    expect(continueAudit(START, stranger, [one])).toEqual({ ok: false, broken: { seq: 1, reason: "account" } });
    expect(continueAudit({ seq: 0, link: new Uint8Array(32).fill(1) }, owner, [one])).toEqual({
      ok: false,
      broken: { seq: 1, reason: "link" },
    });
  });
});

test("a pseudonym depends on account and salt, and shows neither", () => {
  fc.assert(
    fc.property(anyId<UserId>(), anyId<UserId>(), bytesOf(32), bytesOf(32), (a, b, salt, other) => {
      const name = auditPseudonym(a, salt);
      expect(name).toEqual(auditPseudonym(a, salt.slice()));
      expect(name.length).toBe(32);
      if (a !== b) expect(auditPseudonym(b, salt)).not.toEqual(name);
      if (Buffer.compare(salt, other) !== 0) expect(auditPseudonym(a, other)).not.toEqual(name);
    }),
  );
});
