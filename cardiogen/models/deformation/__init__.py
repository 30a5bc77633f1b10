"""Hearts as deformations of a template, from below to above.

template        the mesh, and the lattice on which its velocities live
codes           velocities that bring the template to given meshes
label_codes     velocities that bring it to given label maps, by ``occupancy``
encoding        a whole heart from label maps: pose, end diastole, motion
modes, decoder  velocities of a cycle to a few scores, scores to meshes
phenotypes      volumes and mass as functions of scores
model           all of it behind ``models.protocol``
heart_codes     velocity codes of hearts
training        a model of such codes, and from the reference population
posterior       latents given label maps, by hearts that are ``linearized``
cohort          a model adapted to real hearts; ``adaptation`` tells motion from shape
patients        their posteriors; ``individual`` keeps what sets one heart apart
"""
