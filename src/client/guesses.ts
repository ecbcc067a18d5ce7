/** What people's choices are told by, in words of the estimator. */
export interface Guessing {
  /** Decimal logarithm of the guesses that a password takes. */
  readonly guessesLog10: number;
  readonly feedback: { readonly warning: string | null; readonly suggestions: readonly string[] };
}

/** Estimates a password; `known` are words that an attacker tries first. */
export type Estimator = (password: string, known: string[]) => Guessing;

/** More than this adds nothing, and costs time. */
export const LOOKED_AT = 128;

let estimator: Promise<Estimator> | undefined;

/** The word lists are some megabytes: nobody loads them who neither chooses a password nor asks for a report. */
async function load(): Promise<Estimator> {
  const [{ ZxcvbnFactory }, common, english] = await Promise.all([
    import("@zxcvbn-ts/core"),
    import("@zxcvbn-ts/language-common"),
    import("@zxcvbn-ts/language-en"),
  ]);
  const zxcvbn = new ZxcvbnFactory({
    dictionary: { ...common.dictionary, ...english.dictionary },
    graphs: common.adjacencyGraphs,
    translations: english.translations,
    maxLength: LOOKED_AT,
  });
  return (password, known) => zxcvbn.check(password, known);
}

/** The estimator zxcvbn with its common and English word lists, loaded once. */
export function loadEstimator(): Promise<Estimator> {
  estimator ??= load();
  return estimator;
}
