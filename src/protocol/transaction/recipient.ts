import { Address, OutScript } from "@scure/btc-signer/payment.js";
import { type BTC_NETWORK, NETWORK, TEST_NETWORK } from "@scure/btc-signer/utils.js";
import { addr } from "micro-eth-signer";
import type { AddressNetwork } from "../addresskind.ts";

/** Bitcoin's networks; signet has the addresses of testnet. */
export const BITCOIN_NETWORKS = {
  mainnet: NETWORK,
  testnet: TEST_NETWORK,
  signet: TEST_NETWORK,
  regtest: { ...TEST_NETWORK, bech32: "bcrt" },
} as const satisfies Readonly<Record<AddressNetwork, BTC_NETWORK>>;

/** In front of the hexadecimal script of an output that no address stands for. */
const SCRIPT = "script:";

/**
 * How an output of a Bitcoin transaction is named: by its address on mainnet, for a transaction does not say its
 * network; without one by `script:` and the script in hexadecimal.
 */
export function scriptRecipient(script: Uint8Array): string {
  try {
    const address = Address(NETWORK).encode(OutScript.decode(script));
    // an address that stands for another spelling of the script is not this output's
    if (scriptOf(address, NETWORK) === script.toHex()) return address;
  } catch {
    // none of the kinds that have addresses
  }
  return `${SCRIPT}${script.toHex()}`;
}

function scriptOf(address: string, network: BTC_NETWORK): string | null {
  try {
    return OutScript.encode(Address(network).decode(address)).toHex();
  } catch {
    return null;
  }
}

/**
 * What a recipient is compared by: of an EVM address its small letters, of a Bitcoin address of any network its script.
 *
 * @returns null for text that is no recipient: an EVM address in mixed case must have the checksum of EIP-55.
 */
export function recipientForm(text: string): string | null {
  if (/^0x[0-9a-fA-F]{40}$/.test(text)) return addr.isValid(text) ? text.toLowerCase() : null;
  if (/^script:(?:[0-9a-f]{2})+$/.test(text)) return text;
  for (const network of Object.values(BITCOIN_NETWORKS)) {
    const script = scriptOf(text, network);
    if (script !== null) return `${SCRIPT}${script}`;
  }
  return null;
}
