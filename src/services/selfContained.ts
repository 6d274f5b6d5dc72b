/**
 * Layers that share nothing inside them.
 */
import { Layer } from "effect"

/**
 * A layer whose parts are its own. Effect builds a layer once wherever it is
 * used, so two services of one program would otherwise share the parts that are
 * constants, the store and the actors among them. The layer itself is still
 * built once.
 */
export const selfContained = <A, E, R>(layer: Layer.Layer<A, E, R>): Layer.Layer<A, E, R> =>
  Layer.fromBuildMemo((_, scope) => Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope))
