import { accountNameOf } from "../../client/names.ts";
import { Fault } from "../../errors.ts";
import { BACK, type Back, type Steps } from "../terminal.ts";
import { parseServeLine, problemOfPin, problemOfUrl } from "./serveline.ts";

/** Where the secrets of a new home live. */
export type PlaceKind = "local" | "join" | "here";

/** The answers so far; null is not answered yet. */
export interface Draft {
  kind: PlaceKind | null;
  server: string | null;
  pin: string | null;
  tlsCaPem: string | null;
  account: string | null;
  invite: string | null;
}

/** The questions that lead to a new home. */
export type Question = "where" | "line" | "url" | "pin" | "account" | "invite";

/** What follows when a question is answered: another one, or all is known. */
export type Next = Question | "password";

/** The first question that a draft leaves open. */
export function firstOpen(draft: Draft): Next {
  if (draft.kind === null) return "where";
  if (draft.kind === "local") return "password";
  if (draft.kind === "join" && draft.server === null) return "line";
  if (draft.kind === "join" && draft.pin === null) return "pin";
  return draft.account === null ? "account" : "password";
}

/** Asks one question and keeps the answer in the draft. */
export const QUESTIONS: Readonly<Record<Question, (steps: Steps, draft: Draft) => Promise<Next | Back>>> = {
  async where(steps, draft) {
    const kind = await steps.select<PlaceKind>("Where shall your secrets live?", [
      { value: "local", label: "On this device alone" },
      { value: "join", label: "On a keyhold server that runs already, too" },
      { value: "here", label: "On a server that I start on this machine, too" },
    ]);
    if (kind === BACK) return BACK;
    draft.kind = kind;
    if (kind === "local") return "password";
    return kind === "join" ? "line" : "account";
  },

  async line(steps, draft) {
    const pasted = await steps.text("Paste the line that `keyhold serve` prints there (empty: piece by piece)", {
      check: (text) => {
        if (text.trim() === "") return null;
        const read = parseServeLine(text);
        return "problem" in read ? `${read.problem}: paste it again, or Ctrl-U and Enter` : null;
      },
    });
    if (pasted === BACK) return BACK;
    if (pasted.trim() === "") return "url";
    const read = parseServeLine(pasted);
    if ("problem" in read) return "line";
    Object.assign(draft, { server: read.server, pin: read.pin, invite: read.invite ?? draft.invite });
    await steps.say(`server  ${read.server}\npin     ${read.pin}`);
    if (read.account === null) return "account";
    draft.account = read.account;
    return problemOfAccount(read.account) === null ? "password" : "account";
  },

  async url(steps, draft) {
    const url = await steps.text("URL of the server", {
      initial: draft.server ?? "https://",
      check: (text) => problemOfUrl(text.trim()),
    });
    if (url === BACK) return BACK;
    draft.server = url.trim();
    return "pin";
  },

  async pin(steps, draft) {
    const pin = await steps.text("Pin of the server, as its operator shows it", {
      ...(draft.pin !== null && { initial: draft.pin }),
      check: (text) => problemOfPin(text.trim()),
    });
    if (pin === BACK) return BACK;
    draft.pin = pin.trim();
    return "account";
  },

  async account(steps, draft) {
    const account = await steps.text("Name of your account", {
      ...(draft.account !== null && { initial: draft.account }),
      check: (text) => problemOfAccount(text.trim()),
    });
    if (account === BACK) return BACK;
    draft.account = account.trim();
    return "password";
  },

  async invite(steps, draft) {
    const code = await steps.text("Invite code, from the server's operator", {
      check: (text) => (text.trim() === "" ? "an answer is needed; Esc goes back" : null),
    });
    if (code === BACK) return BACK;
    draft.invite = code.trim().toUpperCase();
    return "password";
  },
};

function problemOfAccount(text: string): string | null {
  try {
    accountNameOf(text);
    return null;
  } catch (error) {
    return error instanceof Fault ? error.message : "this cannot be an account's name";
  }
}
