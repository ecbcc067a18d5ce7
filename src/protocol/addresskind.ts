/** Kinds of addresses that are made of public keys (docs/formats.md). */
export const ADDRESS_KINDS = ["evm", "btc-p2wpkh", "btc-p2tr", "cosmos", "solana", "zcash-p2pkh"] as const;
export type AddressKind = (typeof ADDRESS_KINDS)[number];
export const NETWORKS = ["mainnet", "testnet", "signet", "regtest"] as const;
export type AddressNetwork = (typeof NETWORKS)[number];
