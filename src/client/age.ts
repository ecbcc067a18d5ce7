const SECOND = 1_000;
const STEPS = [
  ["d", 24 * 60 * 60 * SECOND],
  ["h", 60 * 60 * SECOND],
  ["m", 60 * SECOND],
  ["s", SECOND],
] as const;

/** How long ago something was, for people: "just now", "3 m ago", "2 d ago". */
export function ageText(ms: number): string {
  for (const [unit, length] of STEPS) if (ms >= length) return `${Math.floor(ms / length)} ${unit} ago`;
  return "just now";
}
