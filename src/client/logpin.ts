import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { nullable, type Of, struct, text, u53 } from "../wire/codec.ts";
import { hash32, signature } from "../wire/records.ts";

const promised = struct({
  seq: u53,
  link: hash32,
  /** By the server's clock. */
  atMs: u53,
  /** By this machine's clock, which alone decides when the promise is due. */
  seenMs: u53,
  signature,
});

/** What a vault keeps of the server-wide log (docs/protocol.md §6.3, §7.3). */
export const logPinCodec = struct({
  /** Salt of the account's pseudonym; null until an answer or the log's first entry told it. */
  salt: nullable(hash32),
  /** Newest position of the account that was proven to stand in the log; 0 for none. */
  seq: u53,
  /** The pinned checkpoint and the log key that signed it. */
  checkpoint: nullable(struct({ note: text({ min: 1, max: 4_096 }), key: hash32 })),
  /** The oldest promise that is not proven yet, and the newest one if that is another. */
  oldest: nullable(promised),
  newest: nullable(promised),
});

/** A verified inclusion promise that is not proven yet. */
export type Promised = Of<typeof promised>;

/** {@link logPinCodec}'s value. */
export type LogPin = Of<typeof logPinCodec>;

/** Nothing is known of the log yet. */
export const NO_LOG: LogPin = { salt: null, seq: 0, checkpoint: null, oldest: null, newest: null };

function withPromises(log: LogPin, given: readonly (Promised | null)[]): LogPin {
  const open = given.filter((one) => one !== null && one.seq > log.seq) as Promised[];
  open.sort((a, b) => a.seq - b.seq);
  const oldest = open[0] ?? null;
  const last = open.at(-1) ?? null;
  return { ...log, oldest, newest: last === null || last.seq === oldest?.seq ? null : last };
}

/** Takes a promise in: the oldest one stays, the newest one is replaced. */
export function notePromise(log: LogPin, promise: Promised): LogPin {
  return withPromises(log, [log.oldest, log.newest, promise]);
}

/** Marks positions up to `seq` as proven. */
export function noteProven(log: LogPin, seq: number): LogPin {
  return withPromises({ ...log, seq: Math.max(log.seq, seq) }, [log.oldest, log.newest]);
}

const sizeOf = (log: LogPin): number => (log.checkpoint ? Number(log.checkpoint.note.split("\n")[1]) : -1);
const rootOf = (log: LogPin): string | undefined => log.checkpoint?.note.split("\n")[2];

/** What two processes were shown of one log and cannot both be true. */
function contradiction(a: LogPin, b: LogPin): string | null {
  if (a.salt && b.salt && !equalBytes(a.salt, b.salt)) return "it knows the account under two pseudonyms";
  if (sizeOf(a) === sizeOf(b) && rootOf(a) !== rootOf(b)) return `it has two roots at ${sizeOf(a)} leaves`;
  const promises = [a.oldest, a.newest].filter((one) => one !== null);
  const other = promises.find(({ seq, link }) =>
    [b.oldest, b.newest].some((one) => one?.seq === seq && !equalBytes(one.link, link)),
  );
  return other ? `it promised two entries ${other.seq}` : null;
}

/** Joins what two processes of one device know. @throws Fault integrity where that is two logs */
export function mergeLogs(to: LogPin, from: LogPin): LogPin {
  const why = contradiction(to, from);
  if (why !== null) {
    const hint = "trust this server no more; keep its checkpoint and promises as evidence";
    throw new Fault("integrity", "two processes of this device were shown different logs", { why, hint });
  }
  const { checkpoint } = sizeOf(from) > sizeOf(to) ? from : to;
  const log = { ...to, checkpoint, salt: to.salt ?? from.salt, seq: Math.max(to.seq, from.seq) };
  return withPromises(log, [to.oldest, to.newest, from.oldest, from.newest]);
}
