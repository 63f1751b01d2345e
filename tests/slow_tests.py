"""Tests that `make test` leaves to `make test-all`: for each, a sibling that always runs checks the same code.

Each line is a pattern of node ids (``*`` is any text). A test of this list may also be marked
where it is defined; marks of single tests stand there, matrices of variants here.
"""

from __future__ import annotations

import re

PATTERNS = """
cli/test_process.py::test_an_imported_compiler_stays
cli/test_process.py::test_the_compiler_is_imported_when_torchvision_needs_it
cuda/test_device.py::test_levels_are_converted_to_float32_once[cascade_mask_rcnn_lite0]
cuda/test_device.py::test_levels_are_converted_to_float32_once[mask_rcnn_lite0]
cuda/test_recipes.py::test_norms_are_folded_on_the_host[retinanet_lite0]
cuda/test_recipes.py::test_training_resuming_and_prediction[cascade_mask_rcnn_lite0]
data/formats/test_twins.py::test_twins_train_identical_weights
data/test_albumentations.py::*[PiecewiseAffine]
data/test_folder.py::test_batches_do_not_depend_on_workers_or_first_step
data/test_loader.py::test_a_broken_image_arrives_as_one_line_from_any_worker[2]
engine/test_loggers.py::*[mlflow]
engine/test_split.py::test_accumulated_micro_batches_are_one_batch[*cascade*]
engine/test_split.py::test_accumulated_micro_batches_are_one_batch[atss_lite0]
engine/test_split.py::test_accumulated_micro_batches_are_one_batch[dfine_lite0]
engine/test_split.py::test_accumulated_micro_batches_are_one_batch[gfl_lite0]
engine/test_split.py::test_accumulated_micro_batches_are_one_batch[mask_rcnn_lite0]
engine/test_split.py::test_accumulated_micro_batches_are_one_batch[retinanet_lite0]
engine/test_split.py::test_an_empty_batch_has_no_larger_gradient[*rcnn*]
engine/test_split.py::test_an_empty_batch_has_no_larger_gradient[atss_lite0]
engine/test_split.py::test_an_empty_batch_has_no_larger_gradient[dfine_lite0]
engine/test_split.py::test_an_empty_batch_has_no_larger_gradient[gfl_lite0]
engine/test_split.py::test_processes_are_one_batch*
engine/test_split.py::test_the_named_normalizers_depend_on_the_split_or_on_empty_images[image]
evaluation/test_golden.py::test_pairs[coco_mini_detector-bbox-pycocotools]
exporting/test_export.py::test_any_batch_and_size[faster_rcnn_lite0]
exporting/test_export.py::test_it_is_verified_on_the_data_that_test_takes
exporting/test_export.py::test_onnx_runtime_finds_the_same[dfine_lite0]
exporting/test_export.py::test_onnx_runtime_finds_the_same[faster_rcnn_lite0]
exporting/test_export.py::test_onnx_runtime_finds_the_same[fcos_lite0]
exporting/test_export.py::test_onnx_runtime_finds_the_same[gfl_lite0]
exporting/test_export.py::test_onnx_runtime_finds_the_same[retinanet_lite0]
exporting/test_export.py::test_torch_export_finds_the_same[retinanet_lite0]
inference/test_batches.py::test_an_image_alone_and_in_any_list[cascade_rcnn_lite0]
inference/test_batches.py::test_an_image_alone_and_in_any_list[dfine_lite0]
inference/test_batches.py::test_an_image_alone_and_in_any_list[mask_rcnn_lite0]
inference/test_pickle.py::test_an_exported_predictor_is_pickled_by_its_path
inference/test_resume.py::test_a_killed_run_resumes_to_the_results_of_one_run
models/ops/test_rewriting.py::test_backbones_have_the_same_gradients[convnext-torchvision]
models/ops/test_rewriting.py::test_backbones_have_the_same_gradients[efficientnet-dilated]
models/surgery/test_frozen_norms.py::test_maps_and_gradients_stay[retinanet_r50-53-False]
models/test_backbones.py::*[vgg11*]
models/test_backbones.py::test_timm_weights_give_equal_features[densenet121]
models/test_backbones.py::test_timm_weights_give_equal_features[hrnet_w18_small]
models/test_backbones.py::test_timm_weights_give_equal_features[regnety_002]
models/test_backbones.py::test_torchvision_weights_give_equal_features[convnext_tiny]
models/test_backbones.py::test_torchvision_weights_give_equal_features[densenet121]
models/test_backbones.py::test_torchvision_weights_give_equal_features[efficientnet_b0]
models/test_backbones.py::test_torchvision_weights_give_equal_features[mobilenet_v2]
models/test_backbones.py::test_torchvision_weights_give_equal_features[regnet_y_400mf]
models/test_backbones.py::test_torchvision_weights_give_equal_features[swin_v2_t]
models/test_detectors.py::*[cascade_mask_rcnn_lite0]
models/test_detectors.py::test_a_detector_overfits_one_image[dfine_lite0]
models/test_detectors.py::test_a_detector_overfits_one_image[faster_rcnn_lite0]
models/test_detectors.py::test_a_detector_overfits_one_image[fcos_lite0]
models/test_detectors.py::test_a_detector_overfits_one_image[gfl_lite0]
models/test_detectors.py::test_an_image_with_5000_objects[cascade_rcnn_lite0]
models/test_detectors.py::test_an_image_with_5000_objects[dfine_lite0]
models/test_detectors.py::test_an_image_with_5000_objects[faster_rcnn_lite0]
models/test_detectors.py::test_an_image_with_5000_objects[retinanet_lite0]
models/test_detectors.py::test_the_head_forward_is_one_graph[dfine_lite0]
models/test_dfine_parity.py::*[rtdetrv2_r18]
models/test_distillation.py::test_feature_distance_of_equal_weights_is_0[*r50*]
models/test_distillation.py::test_the_teacher_is_frozen_and_not_in_the_state[mask_rcnn_lite0]
models/test_mask_targets.py::test_a_perfect_mask_head_reproduces_the_annotation[*cascade*]
models/test_mask_targets.py::test_a_perfect_mask_head_reproduces_the_annotation[*v2]
models/test_meta_tensors.py::test_a_filled_network_gives_equal_features[swin_t]
models/test_mmdet_parity.py::*[atss]
models/test_mmdet_parity.py::*[cascade_mask_rcnn]
models/test_mmdet_parity.py::*[faster_rcnn]
models/test_partly_labeled.py::*[cascade_mask_rcnn_lite0]
models/test_partly_labeled.py::*[cascade_rcnn_lite0]
models/test_postprocess.py::test_every_head_uses_nms_per_class[cascade_mask_rcnn_lite0]
models/test_torchvision_one_stage_parity.py::*[retinanet_resnet50_fpn_v2]
models/test_torchvision_two_stage_parity.py::*[faster]
models/test_torchvision_two_stage_parity.py::*[faster_v2]
models/test_torchvision_two_stage_parity.py::*[mask_v2]
test_own_parts.py::test_another_backbone_by_its_registered_name
test_own_parts.py::test_extend
test_own_parts.py::test_extend_again_and_with_annotation_files
test_own_parts.py::test_fewshot
test_own_parts.py::test_resume[imports1]
test_own_parts.py::test_study
transfer/interop/test_dfine_files.py::test_import_of_transformers_files[dfine_s-True]
transfer/interop/test_dfine_files.py::test_import_of_transformers_files[rtdetrv2_r18-True]
transfer/test_restore.py::test_tensors_of_a_checkpoint[*boolean]
transfer/test_restore.py::test_tensors_of_a_checkpoint[*complex]
workflows/fewshot/test_extended_base.py::test_undrawn_objects_are_not_background
workflows/fewshot/test_fewshot.py::test_finished_runs_are_kept_and_an_interrupted_run_resumes
workflows/report/test_stored.py::test_an_exported_detector_has_them
workflows/test_changed_classes.py::test_the_advice_works[add]
workflows/test_changed_classes.py::test_tldet_test_matches_classes_by_name[shift_ids]
workflows/test_damaged_checkpoints.py::*[first-*]
workflows/test_damaged_checkpoints.py::*[largest-ex*]
workflows/test_damaged_checkpoints.py::*[largest-train*]
workflows/test_damaged_checkpoints.py::*[last-*]
workflows/test_damaged_checkpoints.py::test_tensors_that_are_not_plain[meta*]
workflows/test_damaged_checkpoints.py::test_tensors_that_are_not_plain[quantized*]
workflows/test_dfine.py::test_a_frozen_backbone_keeps_no_activations
workflows/test_dfine.py::test_initial_weights_by_class_name
workflows/test_distributed.py::test_an_image_that_one_process_cannot_read_is_named_once
workflows/test_distributed.py::test_errors_are_one_line_of_the_main_process
workflows/test_formats.py::test_a_run_resumes_exactly_without_its_annotations
workflows/test_formats.py::test_a_yolo_folder_is_extended_and_used_for_few_shots
workflows/test_import.py::test_finetuning_from*
workflows/test_import.py::test_older_names_of_torchvision_and_the_norms_of_its_published_weights[retinanet]
workflows/test_import.py::test_torchvision_s_detections_are_ours_after_the_import[retinanet-0]
workflows/test_outcome.py::test_a_validation_set_without_objects[crowd]
workflows/test_outcome.py::test_a_validation_set_without_objects[unlabeled]
workflows/test_outcome.py::test_result_table_and_checkpoint[more[1-5]]
workflows/test_partly_labeled.py::test_a_run_on_partly_labeled_images_resumes_to_the_same_weights*
workflows/test_serve.py::test_hostile_bytes_are_answered_with_4xx_or_closed[huge*]
workflows/test_serve.py::test_hostile_bytes_are_answered_with_4xx_or_closed[many headers]
workflows/test_serve.py::test_three_hundred_hostile_requests_leave_the_service_as_it_was
workflows/test_split_lines.py::*[finetune]
workflows/test_split_lines.py::*[study]
workflows/test_transfer.py::test_a_resumed_run_is_the_same[4]
"""


def _expression(pattern: str) -> str:
    """``*`` is any text and ``[1-5]`` inside a parameter one digit; everything else stands for itself."""
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\[1\-5\]", "[1-5]")


SLOW = re.compile("|".join(f"tests/{_expression(line)}" for line in PATTERNS.split()))


def is_slow(node: str) -> bool:
    """Return True if a node id belongs to the list."""
    return SLOW.fullmatch(node) is not None
