import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import { isTextType, type SecretType } from "../protocol/secrettype.ts";
import type { Context } from "../ui/command.ts";
import { changedFields, fieldProblem, hasCheckDigit, kindOfName, usualFields } from "../ui/recordfields.ts";
import { BACK } from "../ui/terminal.ts";
import { plain } from "../ui/text.ts";
import { normalField } from "./fieldargs.ts";

/** What somebody answered. */
export interface Answers {
  /** null: nothing was typed. The caller wipes it. */
  readonly value: Uint8Array | null;
  readonly fields: readonly Field[];
}

type Question =
  | { readonly kind: "value"; readonly label: string; readonly keep: string }
  | { readonly kind: "field"; readonly name: string; readonly secret: boolean; readonly now: string | null };

const VALUE_LABEL: Readonly<Record<string, string>> = { login: "Password", card: "Card number" };
const REMOVE = "-";

function questionsOf(type: SecretType, fields: readonly Field[], isNew: boolean): Question[] {
  const names = [...new Set([...usualFields(type), ...fields.map(({ name }) => name)])];
  const asked = names
    .map((name) => ({ name, now: fields.find((field) => field.name === name) ?? null }))
    // several lines do not fit a question, and several addresses are no one answer
    .filter(({ name, now }) => !now?.value.includes("\n") && fields.filter((field) => field.name === name).length < 2)
    .map(({ name, now }): Question => {
      const kind = now?.kind ?? kindOfName(name);
      return { kind: "field", name, secret: kind === "hidden" || kind === "otp", now: now?.value ?? null };
    });
  // bytes and several lines are no answers
  if (!isTextType(type) || ["identity", "note", "ssh"].includes(type)) return asked;
  const value = valueQuestion(type, isNew);
  return type === "login" ? [...asked.slice(0, 1), value, ...asked.slice(1)] : [value, ...asked];
}

function valueQuestion(type: SecretType, isNew: boolean): Question {
  const keep = !isNew ? "empty keeps it" : type === "login" ? "empty generates one" : "";
  return { kind: "value", label: VALUE_LABEL[type] ?? "Value", keep };
}

/** Asks for the value of a new login or card alone; null for none. @throws Fault input_needed, interrupted */
export async function askValue(ctx: Pick<Context, "term" | "out">, type: "login" | "card"): Promise<Uint8Array | null> {
  const answer = await ask(ctx, valueQuestion(type, true), undefined);
  if (answer === BACK) throw new Fault("interrupted", "cancelled", { hint: "nothing was done" });
  return answer === "" ? null : valueBytes(type, answer);
}

function valueBytes(type: SecretType, answer: string): Uint8Array {
  return new TextEncoder().encode(type === "card" ? answer.replace(/[ -]/g, "") : answer);
}

const labelOf = (name: string): string => plain(name.slice(0, 1).toUpperCase() + name.slice(1));

/**
 * Asks for a secret's value and fields, one after another, today's as defaults; Esc goes one question back.
 *
 * @param isNew Nothing is there yet.
 * @throws Fault input_needed, interrupted
 */
export async function askRecord(
  ctx: Pick<Context, "term" | "out">,
  type: SecretType,
  before: readonly Field[],
  options: { readonly name: string; readonly isNew: boolean },
): Promise<Answers> {
  const { steps } = ctx.term;
  const questions = questionsOf(type, before, options.isNew);
  if (questions.length === 0) {
    throw new Fault("usage", "there is nothing to ask about", { hint: "--set FIELD=VALUE or --in-file FILE" });
  }
  const answers = new Map<Question, string>();
  for (let i = 0; i < questions.length; ) {
    const question = questions[i];
    if (!question) break;
    const answer = await ask(ctx, question, answers.get(question));
    if (answer === BACK) {
      if (i === 0) throw new Fault("interrupted", "cancelled", { hint: "nothing was done" });
      i--;
      continue;
    }
    const problem = await problemOf(question, answer, options.name);
    if (problem !== null) {
      await steps.say(problem, "warn");
      continue;
    }
    if (question.kind === "value" && type === "card" && answer !== "" && !hasCheckDigit(answer)) {
      await steps.say("The check digit of this number does not fit. It is kept as typed; Esc goes back.", "warn");
    }
    answers.set(question, answer);
    i++;
  }
  let value: Uint8Array | null = null;
  const changes: { name: string; value: string | null; otherwise: "text" | "hidden" }[] = [];
  for (const [question, answer] of answers) {
    if (question.kind === "value") {
      if (answer !== "") value = valueBytes(type, answer);
      continue;
    }
    const { name, secret, now } = question;
    const gone = secret ? answer === REMOVE : answer === "";
    if (gone) {
      if (now !== null) changes.push({ name, value: null, otherwise: "text" });
    } else if (answer !== "" && answer !== now) {
      const otherwise = secret ? "hidden" : "text";
      changes.push({ name, value: await normalField(name, answer, options.name), otherwise });
    }
  }
  return { value, fields: changedFields(before, changes) };
}

async function ask(
  { term }: Pick<Context, "term">,
  question: Question,
  again: string | undefined,
): Promise<string | typeof BACK> {
  if (question.kind === "value") {
    return term.steps.password(`${question.label}${question.keep === "" ? "" : ` (${question.keep})`}`);
  }
  const { name, secret, now } = question;
  if (secret)
    return term.steps.password(`${labelOf(name)} (${now === null ? "empty: none" : "empty keeps it, - removes it"})`);
  return term.steps.text(labelOf(name), { initial: again ?? now ?? "", check: (text) => fieldProblem(name, text) });
}

/** Why what was typed unseen cannot be kept, or null. */
async function problemOf(question: Question, answer: string, name: string): Promise<string | null> {
  if (question.kind === "value" || !question.secret || answer === "" || answer === REMOVE) return null;
  const problem = fieldProblem(question.name, answer);
  if (problem !== null) return problem;
  try {
    await normalField(question.name, answer, name);
    return null;
  } catch (error) {
    if (error instanceof Fault) return `${error.message}.`;
    throw error;
  }
}
