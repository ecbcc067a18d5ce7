import { Fault } from "../../errors.ts";
import type { Amount } from "../federation/request.ts";

/** What a transaction does, read from its bytes and from nothing else. */
export interface TransactionFacts {
  /** All that leaves the key, in whole smallest units; null where the bytes do not say. */
  readonly amount: Amount | null;
  /** Everybody else who is paid, each once (`recipientForm` compares them); empty where the bytes do not say. */
  readonly recipients: readonly string[];
  /** For people. */
  readonly lines: readonly { readonly label: string; readonly value: string }[];
}

/** A transaction that was read: what is signed of it, 32 bytes, and what it does. */
export interface ReadTransaction {
  readonly sighash: Uint8Array;
  readonly facts: TransactionFacts;
}

/** Bytes of a serialized transaction at most. */
export const TRANSACTION_MAX = 64 * 1_024;

/** Units that only transactions have: a rule that limits them looks at nothing that a requester declares. */
const TRANSACTION_UNIT = /^(?:sat|wei\.[1-9][0-9]*|erc20\.[0-9a-f]{40}\.[1-9][0-9]*)$/;

/** True for a unit in which an amount is read from a transaction: `sat`, `wei.CHAIN`, `erc20.TOKEN.CHAIN`. */
export const isTransactionUnit = (unit: string): boolean => TRANSACTION_UNIT.test(unit);

/** The refusal of bytes that are not what their form says. */
export const cannotSign = (what: string): Fault => new Fault("bad_input", `this cannot be signed: ${what}`);

/** Whole smallest units with a decimal point, without zeros at the end. */
export function decimal(units: bigint, places: number): string {
  const digits = String(units).padStart(places + 1, "0");
  const [whole, part] = [digits.slice(0, -places), digits.slice(-places).replace(/0+$/, "")];
  return part === "" ? whole : `${whole}.${part}`;
}
