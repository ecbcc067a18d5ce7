import { keccak_256 } from "@noble/hashes/sha3.js";
import { addr, Transaction } from "micro-eth-signer";
import { equalBytes } from "../../crypto/bytes.ts";
import { cannotSign, decimal, type ReadTransaction, TRANSACTION_MAX, type TransactionFacts } from "./facts.ts";

const ETHER = 18;
/** `transfer(address,uint256)` (ERC-20): selector, address in 32 bytes, amount in 32 bytes. */
const TRANSFER = /^0xa9059cbb0{24}([0-9a-f]{40})([0-9a-f]{64})$/;
/** So that units stay within 64 characters. */
const CHAIN_MAX = BigInt(Number.MAX_SAFE_INTEGER);

const KINDS = { legacy: "legacy with EIP-155", eip2930: "EIP-2930", eip1559: "EIP-1559" } as const;

interface Fields {
  readonly kind: keyof typeof KINDS;
  readonly chainId: bigint;
  readonly nonce: bigint;
  readonly gasLimit: bigint;
  /** Wei each unit of gas at most. */
  readonly gasPrice: bigint;
  /** Checksummed (EIP-55); `0x` makes a contract. */
  readonly to: string;
  readonly value: bigint;
  /** Hexadecimal after `0x`. */
  readonly data: string;
  readonly accessList: number;
}

function parse(bytes: Uint8Array) {
  try {
    return Transaction.fromBytes(bytes);
  } catch {
    throw cannotSign("these bytes are no Ethereum transaction");
  }
}

function again(transaction: ReturnType<typeof parse>): Uint8Array {
  try {
    return transaction.toBytes({ includeSignature: false });
  } catch {
    throw cannotSign("these bytes are no Ethereum transaction");
  }
}

function fieldsOf(bytes: Uint8Array): Fields {
  const transaction = parse(bytes);
  const { type, raw } = transaction;
  if (["r", "s", "yParity"].some((field) => field in raw)) throw cannotSign("this transaction is signed already");
  if (type !== "legacy" && type !== "eip2930" && type !== "eip1559") {
    throw cannotSign(`transactions of type ${type} are not known here: legacy, EIP-2930 and EIP-1559 are`);
  }
  // what is signed are these very bytes
  if (!equalBytes(again(transaction), bytes)) throw cannotSign("this transaction is not serialized canonically");
  const { chainId } = raw;
  if (chainId === undefined) {
    throw cannotSign("a transaction without chain id counts on every chain (EIP-155 names one)");
  }
  if (chainId < 1n || chainId > CHAIN_MAX) throw cannotSign("chain ids are 1 to 2^53 - 1");
  const gasPrice = "maxFeePerGas" in raw ? raw.maxFeePerGas : raw.gasPrice;
  const accessList = "accessList" in raw ? raw.accessList.length : 0;
  const { nonce, gasLimit, to, value, data } = raw;
  return { kind: type, chainId, nonce, gasLimit, gasPrice, to, value, data: data || "0x", accessList };
}

const wei = (value: bigint) => `${value} wei (${decimal(value, ETHER)} of the chain's coin)`;

/** What is paid, to whom, in words; null where only the contract knows. */
function payment(f: Fields, fee: bigint): TransactionFacts {
  const { to, value, data, chainId } = f;
  if (data === "0x" && to !== "0x") {
    return {
      amount: { unit: `wei.${chainId}`, value: String(value + fee) },
      recipients: [to],
      lines: [
        { label: "pays to", value: to },
        { label: "value", value: wei(value) },
      ],
    };
  }
  const [, toDigits, amountDigits] = TRANSFER.exec(data) ?? [];
  if (to !== "0x" && value === 0n && toDigits !== undefined && amountDigits !== undefined) {
    const recipient = addr.addChecksum(toDigits);
    const tokens = BigInt(`0x${amountDigits}`);
    return {
      amount: { unit: `erc20.${to.slice(2).toLowerCase()}.${chainId}`, value: String(tokens) },
      recipients: [recipient],
      lines: [
        { label: "token", value: to },
        { label: "pays to", value: recipient },
        { label: "tokens", value: `${tokens} smallest units (ERC-20 transfer)` },
      ],
    };
  }
  const size = (data.length - 2) / 2;
  const what =
    to === "0x"
      ? { label: "makes a contract", value: `of ${size} bytes of code: what it does is not known` }
      : { label: "calls the contract", value: `${to} with ${size} bytes: what it does is not known` };
  return { amount: null, recipients: [], lines: [what, { label: "value", value: wei(value) }, ...callData(data)] };
}

const SHOWN = 2 + 2 * 512;
const callData = (data: string) =>
  data === "0x" ? [] : [{ label: "call data", value: data.length > SHOWN ? `${data.slice(0, SHOWN)}… (cut)` : data }];

/**
 * Reads an unsigned EVM transaction: legacy with a chain id (EIP-155), EIP-2930 or EIP-1559, in its one serialization.
 * Its sighash is the Keccak-256 of those bytes.
 *
 * A payment's amount contains the highest fee; an ERC-20 transfer's does not, for the fee is in another coin.
 *
 * @throws Fault bad_input
 */
export function readEvm(bytes: Uint8Array): ReadTransaction {
  if (bytes.length > TRANSACTION_MAX) throw cannotSign(`a transaction has at most ${TRANSACTION_MAX} bytes`);
  const fields = fieldsOf(bytes);
  const fee = fields.gasLimit * fields.gasPrice;
  const { amount, recipients, lines } = payment(fields, fee);
  const list = fields.accessList === 0 ? [] : [{ label: "access list", value: `${fields.accessList} addresses` }];
  return {
    sighash: keccak_256(bytes),
    facts: {
      amount,
      recipients,
      lines: [
        { label: "transaction", value: `EVM, ${KINDS[fields.kind]}` },
        { label: "chain", value: String(fields.chainId) },
        ...lines,
        { label: "fee at most", value: wei(fee) },
        { label: "nonce", value: String(fields.nonce) },
        ...list,
      ],
    },
  };
}
