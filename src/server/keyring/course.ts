/** Attempts of one item at most: an enclave answers no more of a use (docs/protocol.md §9.6). */
export const ATTEMPTS_MAX = 8;

/** `make` makes a key, `use` signs by FROST, `release` lets shares out to the owner's client. */
export const COURSE_KINDS = ["make", "use", "release"] as const;
type CourseKind = (typeof COURSE_KINDS)[number];

/** `out`: proven to cheat, refusing, or unable: never asked for this item again. */
export const STANDS = ["idle", "asked", "ready", "out"] as const;
type Stand = (typeof STANDS)[number];

/**
 * Where the coordination of one item stands.
 *
 * - `waiting`: the workspace has not approved, so that nobody is asked;
 * - `preparing`: parties bring it to their servers;
 * - `running`: an attempt is under way;
 * - `settling`: there is a result, and parties are to answer for it;
 * - `over`: nothing more happens.
 */
export const STAGES = ["waiting", "preparing", "running", "settling", "over"] as const;
type Stage = (typeof STAGES)[number];

/** One party that can take part: of a use a holder of the key. */
interface CourseParty {
  /** Of its server in the federation's manifest. */
  readonly index: number;
  readonly stand: Stand;
  /** Attempts that it has spoiled without a proof. */
  readonly strikes: number;
}

/** The coordination of one item: no keys, no messages (docs/protocol.md §9.6). */
export interface Course {
  readonly kind: CourseKind;
  readonly stage: Stage;
  /** Servers that an attempt takes at least. */
  readonly least: number;
  /** Ascending by index. */
  readonly parties: readonly CourseParty[];
  /** Newest attempt; 0 before the first. */
  readonly attempt: number;
  readonly roster: readonly number[];
  /** Whose answer the running step waits for. */
  readonly due: readonly number[];
  /** When the running step was given out, or when enough parties were ready; otherwise null. */
  readonly sinceMs: number | null;
}

type CourseEvent =
  /** The workspace's policy allows it. */
  | { readonly type: "called" }
  /** It does not any more. */
  | { readonly type: "recalled" }
  /** A party's server would run it. */
  | { readonly type: "ready"; readonly index: number }
  /** A party could not bring it to its server (`final`: never will). */
  | { readonly type: "away"; readonly index: number; readonly final: boolean }
  /** The attempt that was wished is signed and stored. */
  | { readonly type: "ordered"; readonly attempt: number; readonly roster: readonly number[] }
  /** Tasks of the running attempt were given out to these. */
  | { readonly type: "step"; readonly due: readonly number[] }
  /** One of them has said what came of it. */
  | { readonly type: "answered"; readonly index: number }
  /** The attempt came to nothing. */
  | {
      readonly type: "spoilt";
      readonly culprits: readonly number[];
      readonly suspects: readonly number[];
      /** Those of them that must say again that they are ready. */
      readonly absent: readonly number[];
    }
  /** There is a result. */
  | { readonly type: "settled" }
  | { readonly type: "ended" }
  | { readonly type: "tick" };

/**
 * What the coordinator does.
 *
 * - `ask`: a task to prepare; `askLater`: the same after a while; `quiet`: nobody is asked any more;
 * - `order`: begin this attempt, if the policy still allows; `move`: give out the attempt's next step;
 * - `silent`: these have not answered in time; `fail`: it can come to nothing any more.
 */
export type CourseEffect =
  | { readonly do: "ask" | "askLater"; readonly index: number }
  | { readonly do: "quiet" }
  | { readonly do: "order"; readonly attempt: number; readonly roster: readonly number[] }
  | { readonly do: "move" }
  | { readonly do: "silent"; readonly indices: readonly number[] }
  | { readonly do: "fail"; readonly why: string };

interface CourseStep {
  readonly course: Course;
  readonly effects: readonly CourseEffect[];
}

/** Times that the coordination waits, in milliseconds. */
export interface Patience {
  /** For the other parties once enough are ready to make a key. */
  readonly graceMs: number;
  /** For the answer to one step. */
  readonly stepMs: number;
}

/** A course before anybody was asked. @param indices Of the parties that can take part. */
export function openCourse(kind: CourseKind, least: number, indices: readonly number[]): Course {
  const parties = [...indices]
    .sort((a, b) => a - b)
    .map((index): CourseParty => ({ index, stand: "idle", strikes: 0 }));
  return { kind, stage: "waiting", least, parties, attempt: 0, roster: [], due: [], sinceMs: null };
}

const same = (course: Course): CourseStep => ({ course, effects: [] });

function changed(course: Course, index: number, change: Partial<CourseParty>): Course {
  return { ...course, parties: course.parties.map((p) => (p.index === index ? { ...p, ...change } : p)) };
}

const standOf = ({ parties }: Course, index: number): Stand | undefined =>
  parties.find((p) => p.index === index)?.stand;

/**
 * Who takes part: of a new key everyone who has not failed, and of the others as many as it takes; of a use exactly as
 * many as it takes, those who failed least.
 */
function chosen({ kind, least }: Course, ready: readonly CourseParty[]): readonly number[] {
  const sound = ready.filter(({ strikes }) => strikes === 0);
  const sorted = [...ready].sort((a, b) => a.strikes - b.strikes || a.index - b.index);
  const all = kind === "make" && sound.length >= least ? sound : sorted.slice(0, least);
  return all.map(({ index }) => index).sort((a, b) => a - b);
}

/** Orders the next attempt once it is time for it; gives up once that cannot be. */
function considered(step: CourseStep, nowMs: number, { graceMs }: Patience): CourseStep {
  const { course, effects } = step;
  if (course.stage !== "preparing") return step;
  const { kind, least, attempt, sinceMs } = course;
  const able = course.parties.filter(({ stand }) => stand !== "out");
  const ready = able.filter(({ stand }) => stand === "ready");
  const fail = (why: string): CourseStep => ({ course, effects: [...effects, { do: "fail", why }] });
  if (able.length < least) return fail("too few parties can take part");
  if (attempt >= ATTEMPTS_MAX) return fail("it has used up its attempts");
  if (ready.length < least) return { course: { ...course, sinceMs: null }, effects };
  const since = sinceMs ?? nowMs;
  const waits = kind === "make" && ready.length < able.length && nowMs < since + graceMs;
  if (waits) return { course: { ...course, sinceMs: since }, effects };
  const order = { do: "order", attempt: attempt + 1, roster: chosen(course, ready) } as const;
  return { course: { ...course, sinceMs: since }, effects: [...effects, order] };
}

/** Asks everyone who is idle. */
function asking(course: Course): CourseStep {
  const idle = course.parties.filter(({ stand }) => stand === "idle");
  const parties = course.parties.map((p): CourseParty => (p.stand === "idle" ? { ...p, stand: "asked" } : p));
  return { course: { ...course, parties }, effects: idle.map(({ index }) => ({ do: "ask", index })) };
}

function spoilt(course: Course, event: Extract<CourseEvent, { type: "spoilt" }>): CourseStep {
  if (course.stage !== "running") return same(course);
  let next: Course = { ...course, stage: "preparing", due: [], sinceMs: null };
  for (const index of event.suspects) {
    const strikes = course.parties.find((p) => p.index === index)?.strikes ?? 0;
    next = changed(next, index, { strikes: strikes + 1 });
  }
  for (const index of event.absent)
    if (standOf(next, index) === "ready") next = changed(next, index, { stand: "idle" });
  for (const index of event.culprits) next = changed(next, index, { stand: "out" });
  return asking(next);
}

function away(course: Course, { index, final }: Extract<CourseEvent, { type: "away" }>): CourseStep {
  const stand = standOf(course, index);
  if (stand === undefined || stand === "out" || course.stage === "settling" || course.stage === "over")
    return same(course);
  if (final) return same(changed(course, index, { stand: "out" }));
  if (stand !== "asked") return same(course);
  return { course, effects: [{ do: "askLater", index }] };
}

function ticked(course: Course, nowMs: number, { stepMs }: Patience): CourseStep {
  const { stage, due, sinceMs } = course;
  if (stage !== "running" || sinceMs === null || nowMs < sinceMs + stepMs) return same(course);
  // nobody is awaited any more: whoever was to go on from here has ended in the middle
  return { course, effects: [due.length === 0 ? { do: "move" } : { do: "silent", indices: due }] };
}

function happened(course: Course, event: CourseEvent, nowMs: number, patience: Patience): CourseStep {
  const { stage } = course;
  switch (event.type) {
    case "called":
      return stage === "waiting" ? asking({ ...course, stage: "preparing" }) : same(course);
    case "recalled": {
      if (stage !== "preparing" && stage !== "running") return same(course);
      // whoever was ready was so by votes that do not count any more
      const parties = course.parties.map((p): CourseParty => (p.stand === "out" ? p : { ...p, stand: "idle" }));
      const next: Course = { ...course, stage: "waiting", parties, due: [], sinceMs: null };
      return { course: next, effects: [{ do: "quiet" }] };
    }
    case "ready":
      if (stage === "waiting" || standOf(course, event.index) !== "asked") return same(course);
      return same(changed(course, event.index, { stand: "ready" }));
    case "away":
      return away(course, event);
    case "ordered": {
      if (stage !== "preparing" || event.attempt <= course.attempt) return same(course);
      const { attempt, roster } = event;
      return same({ ...course, stage: "running", attempt, roster, due: [], sinceMs: nowMs });
    }
    case "step":
      return stage === "running" ? same({ ...course, due: event.due, sinceMs: nowMs }) : same(course);
    case "answered": {
      if (stage !== "running" || !course.due.includes(event.index)) return same(course);
      const due = course.due.filter((index) => index !== event.index);
      return { course: { ...course, due }, effects: due.length === 0 ? [{ do: "move" }] : [] };
    }
    case "spoilt":
      return spoilt(course, event);
    case "settled":
      return stage === "over" ? same(course) : same({ ...course, stage: "settling", due: [], sinceMs: null });
    case "ended":
      return same({ ...course, stage: "over", due: [], sinceMs: null });
    case "tick":
      return ticked(course, nowMs, patience);
  }
}

/** Every step of the coordination of one item; what has no meaning in a stage leaves it as it is. Never throws. */
export function pursue(course: Course, event: CourseEvent, nowMs: number, patience: Patience): CourseStep {
  return considered(happened(course, event, nowMs, patience), nowMs, patience);
}

/** When time alone would change something; null while nothing is awaited. */
export function wakeAtMs({ stage, sinceMs }: Course, { graceMs, stepMs }: Patience): number | null {
  if (sinceMs === null) return null;
  if (stage === "preparing") return sinceMs + graceMs;
  return stage === "running" ? sinceMs + stepMs : null;
}
