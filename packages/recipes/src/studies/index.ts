import { activations } from './activations.js';
import { convergence } from './convergence.js';
import { dynamics } from './dynamics.js';
import { learningRates } from './learning-rates.js';
import { masks } from './masks.js';
import { methods } from './methods.js';
import { patterns } from './patterns.js';
import { recovery } from './recovery.js';
import { speed } from './speed.js';
import type { Prunable } from '../objective.js';
import type { Study } from './study.js';
import { teachers } from './teachers.js';

/** The paper's experiments, by name. */
export const studies: Readonly<Record<string, Study | Study<Prunable>>> = Object.fromEntries([methods, masks, patterns, recovery, teachers, convergence, speed, dynamics, activations, learningRates].map((study) => [study.name, study]));
