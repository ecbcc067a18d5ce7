import type { CeremonyInfo } from "../client/ceremonyapi.ts";
import { plain } from "../ui/text.ts";
import { collectText, leftText, outputText } from "./ceremonyshown.ts";

/** Names beyond these are counted. */
const NAMES_SHOWN = 8;

function names({ seats }: CeremonyInfo, index: number): string {
  const others = seats.filter((seat) => seat.index !== index).map(({ name }) => plain(name));
  const shown = others.slice(0, NAMES_SHOWN).join(", ");
  return others.length > NAMES_SHOWN ? `${shown} and ${others.length - NAMES_SHOWN} more` : shown;
}

const everyone = (count: number): string => (count === 2 ? "both" : `all ${count}`);

/** What somebody is about to take part in, in words that need no knowledge of it. @param index Seat that is taken. */
export function introduction(info: CeremonyInfo, index: number, nowMs: number): string[] {
  const you = info.seats.find((seat) => seat.index === index)?.name ?? String(index);
  const left = info.until === null ? "" : ` There are ${leftText(Date.parse(info.until) - nowMs)} left to join.`;
  return [
    `You are invited, as "${plain(you)}", to make a key together with ${names(info, index)}.`,
    `What for: ${plain(info.purpose)}\nIt becomes: ${outputText(info.output)}\nAt the server: ${plain(info.url)}\nIt leaves the server: ${collectText(info)}`,
    `What will happen:
1. This computer draws 32 bytes by chance. You may add words, dice or a file.
2. It sends a seal of them: nobody can read anything from it, and nobody can change what is sealed, you included.
3. When all have sent theirs, the server shows its own part, and each computer sends what it had sealed. This one does it by itself.
4. The server makes the key of all parts together, and this computer checks every step.`,
    `What the server learns: that you take part, when, and your part, but only after everyone's is sealed.${
      info.output.kind === "multisig"
        ? " It never learns the key that you will spend with."
        : " It puts the key together, so it could keep it: that you must trust it for."
    } The others learn none of it.`,
    `It takes ${info.minimum === info.seats.length ? everyone(info.minimum) : `at least ${info.minimum} of ${info.seats.length}`} participants.${left} Once you have committed, this computer must be back before the end, or all is in vain and your name is said: leave the command running, or run it again.`,
  ];
}
